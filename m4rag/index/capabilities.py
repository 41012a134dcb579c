"""What a Milvus can do. Code asks this table and refuses; it never tries and never degrades."""

from __future__ import annotations

import re
from dataclasses import dataclass

from m4rag.errors import Unavailable


@dataclass(frozen=True)
class Capabilities:
    """What this Milvus does, as measured, not as it accepts.

    Attributes:
        version: The server's version string.
        embedded: Milvus Lite inside this process.
        bm25: Full-text search by a BM25 function.
        hybrid: Two vector fields in a collection and `hybrid_search` over them.
        loads_before_index: A collection can be read before it has an index.
        synchronous_load: Loading builds what is missing; a loaded collection must be released to be built again.
        comfortable_rows: Rows up to which a search is interactive, None if it scales.
    """

    version: str
    embedded: bool
    bm25: bool
    hybrid: bool
    loads_before_index: bool
    synchronous_load: bool
    comfortable_rows: int | None

    def require(self, channels: tuple[str, ...]) -> None:
        """Refuse channels that this Milvus does not have.

        Raises:
            Unavailable: It lacks one; says what works instead.
        """
        if "bm25" in channels and not self.bm25:
            raise Unavailable(
                "no BM25",
                where=f"Milvus {self.version}",
                remedy="Use Milvus 2.5 or later, or build with --channels dense.",
            )
        if len(channels) > 1 and not self.hybrid:
            raise Unavailable(
                "no second vector field",
                where=f"Milvus {self.version}",
                remedy="Use Milvus 2.5 or later, or build with --channels dense.",
            )


def capabilities_of(version: str) -> Capabilities:
    """The capabilities behind a version string: `milvus_lite-3.2.2`, `v2.3.5-lite`, `v3.0.1`.

    The last two are servers (the PyPI package of the 2.3 server calls itself lite). A string that says nothing is
    trusted with nothing but dense search.
    """
    if version.startswith("milvus_lite-"):
        return Capabilities(
            version=version,
            embedded=True,
            bm25=True,
            hybrid=True,
            loads_before_index=True,
            synchronous_load=True,
            comfortable_rows=20_000,
        )
    found = re.match(r"v?(\d+)\.(\d+)", version)
    number = (int(found[1]), int(found[2])) if found else (0, 0)
    return Capabilities(
        version=version,
        embedded=False,
        bm25=number >= (2, 5),
        hybrid=number >= (2, 4),
        loads_before_index=False,
        synchronous_load=False,
        comfortable_rows=None,
    )
