"""Search an index by meaning (`dense`), by words (`bm25`), or by both (`hybrid`, reciprocal rank fusion)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from m4rag.encoders import Encoder, Query, load
from m4rag.errors import UsageError
from m4rag.index import lexical
from m4rag.index.collection import DENSE, PAYLOAD, SPARSE, Description
from m4rag.index.store import Store, literal
from m4rag.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SearchChannel = Literal["dense", "bm25", "hybrid"]
SEARCH_CHANNELS: tuple[SearchChannel, ...] = ("dense", "bm25", "hybrid")

BATCH = 64
"""Queries a call. Milvus Lite reads every row once a call: 64 queries cost little more than one."""

MIN_CANDIDATES = 50
"""Each channel of a hybrid search contributes at least this many passages, or as many as are asked for."""


@dataclass(frozen=True)
class Hit:
    """A passage that a search found; higher scores are better in every channel.

    Attributes:
        chunk_id: The passage.
        score: Cosine for `dense`, BM25 for `bm25`, the sum of reciprocal ranks for `hybrid`.
        document_id: The document it was cut from.
        title: That document's title.
        text: The passage.
        language: Its language.
        source: Its corpus.
        image: Picture of the document, None without one.
    """

    chunk_id: str
    score: float
    document_id: str
    title: str
    text: str
    language: str
    source: str
    image: str | None


def search(
    store: Store,
    name: str,
    queries: Sequence[Query],
    encoder: Encoder | None,
    k: int,
    channel: SearchChannel = "hybrid",
    *,
    languages: Sequence[str] = (),
    sources: Sequence[str] = (),
) -> list[list[Hit]]:
    """The best passages for each query, best first.

    Args:
        store: Where the index is.
        name: Alias (what production reads) or collection.
        queries: Searched 64 at a time.
        encoder: The one the index was built with; None for `bm25`.
        k: Passages a query, 1 to 16,384; fewer come back where fewer match.
        channel: `dense`, `bm25` or `hybrid`.
        languages: Only passages in these languages; none means all.
        sources: Only passages of these corpora; none means all.

    Raises:
        UsageError: No such index, it lacks the channel, or it was built with another encoder.
        Unavailable: Milvus or the encoder does not answer.
    """
    description = store.describe(name)
    check(description, encoder, channel)
    if not queries:
        return []
    vectors = encoder.encode_queries(queries) if encoder is not None and channel != "bm25" else None
    return search_encoded(
        store,
        description.name,
        [query.text for query in queries],
        vectors,
        k,
        channel,
        languages=languages,
        sources=sources,
    )


def encoder_of(description: Description, settings: Settings, spec: str | None = None) -> Encoder | None:
    """The encoder that an index was built with; None if it has no dense channel.

    Args:
        description: The index.
        settings: Where an endpoint is and its key.
        spec: The same encoder at another address or path than when it was built.

    Raises:
        UsageError: `spec` is another encoder.
        Unavailable: Its package or server is missing.
    """
    if "dense" not in description.channels:
        return None
    encoder = load(spec or description.encoder_spec, settings, dim=description.dim)
    check(description, encoder, "dense")
    return encoder


def check(description: Description, encoder: Encoder | None, channel: SearchChannel) -> None:
    """Refuse a search that this index can't answer truthfully.

    Raises:
        UsageError: It lacks the channel, no encoder is given, or another one than the index was built with.
    """
    wanted = {"dense", "bm25"} if channel == "hybrid" else {channel}
    if lacking := sorted(wanted - set(description.channels)):
        raise UsageError(
            f"no {' and no '.join(lacking)} channel",
            where=description.name,
            remedy=f"Search {' or '.join(description.channels)}, or build it with that channel.",
        )
    if channel == "bm25":
        return
    if encoder is None:
        raise UsageError(f"a {channel} search needs an encoder", remedy=f"Use {description.encoder_spec}.")
    if encoder.identity != description.encoder_identity:
        raise UsageError(
            f"built with {description.encoder} ({description.dim} numbers a vector), "
            f"searched with {encoder.name} ({encoder.dim}), which is not the same encoder",
            where=description.name,
            remedy=f"Search with {description.encoder_spec}, or build the index again.",
        )


def search_encoded(
    store: Store,
    name: str,
    texts: Sequence[str],
    vectors: NDArray[np.float32] | None,
    k: int,
    channel: SearchChannel,
    *,
    languages: Sequence[str] = (),
    sources: Sequence[str] = (),
) -> list[list[Hit]]:
    """`search` for queries whose vectors are made already; `vectors` may be None for `bm25`."""
    found: list[list[Hit]] = []
    options: dict[str, Any] = {"filter": _filter(languages, sources), "columns": PAYLOAD}
    for part in _parts(len(texts)):
        data: dict[str, Any] = {}
        if channel != "bm25":
            if vectors is None:
                raise TypeError(f"a {channel} search needs vectors")
            data[DENSE] = vectors[part]
        if channel != "dense":
            data[SPARSE] = [lexical.code(text) or lexical.NOTHING for text in texts[part]]
        if channel == "hybrid":
            rows = store.fused(name, data, k, candidates=max(MIN_CANDIDATES, k), **options)
        else:
            ((column, queries),) = data.items()
            rows = store.search(name, column, queries, k, **options)
        found.extend([_hit(row) for row in hits] for hits in rows)
    return found


def _parts(total: int) -> Iterator[slice]:
    return (slice(start, start + BATCH) for start in range(0, total, BATCH))


def _filter(languages: Sequence[str], sources: Sequence[str]) -> str:
    wanted = {"language": languages, "source": sources}
    return " and ".join(f"{column} in {literal(values)}" for column, values in wanted.items() if values)


def _hit(row: dict[str, Any]) -> Hit:
    return Hit(
        score=row["score"], image=row["image"] or None, **{each: row[each] for each in PAYLOAD if each != "image"}
    )
