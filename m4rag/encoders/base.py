"""What every encoder is: the protocol, the query, and the one way to make unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from m4rag.corpus.chunker import Tokenizer
from m4rag.errors import BadData, UsageError
from m4rag.schema import Chunk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
        text: The words, "" for an image alone.
        image: Path or URL of a picture, None without one.
    """

    text: str
    image: str | None = None


class Encoder(Protocol):
    """Maps queries and passages into one space, where the inner product of unit vectors says how close they are.

    Attributes:
        name: Short name for tables.
        spec: What `m4rag.encoders.load` makes it from.
        dim: Length of its vectors.
        identity: What makes two encoders give equal vectors (JSON); enters the digest of every index. No address, no
            path: the same model elsewhere is the same encoder.
        languages: Codes of the languages it was trained on; None if its maker does not say.
        modalities: `("text",)` or `("text", "image")`: what a query may hold.
        tokenizer: Its own token count; None if it can't be asked.
        max_tokens: Most tokens of a passage with its title; None if it does not say.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def spec(self) -> str: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def identity(self) -> dict[str, Any]: ...  # noqa: D102
    @property
    def languages(self) -> tuple[str, ...] | None: ...  # noqa: D102
    @property
    def modalities(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def tokenizer(self) -> Tokenizer | None: ...  # noqa: D102
    @property
    def max_tokens(self) -> int | None: ...  # noqa: D102

    def encode_queries(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Queries to float32 [n, dim], every row of length 1."""
        ...

    def encode_passages(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        """Passages to float32 [n, dim], every row of length 1."""
        ...


PASSAGE = "{title}\n{text}"
"""How a passage is put before an encoder; part of every encoder's identity."""


def passage_text(chunk: Chunk) -> str:
    """A passage with its title, as encoders read it."""
    return PASSAGE.format(title=chunk.title, text=chunk.text)


def text_only(queries: Sequence[Query], encoder: str) -> list[str]:
    """The texts of queries for an encoder that reads nothing else.

    Raises:
        UsageError: A query has an image, which would be left out.
    """
    for query in queries:
        if query.image is not None:
            raise UsageError(
                f"encoder {encoder} reads text only, and a query has an image",
                where=query.image,
                remedy="Use a multimodal encoder: vllm:<base URL of a pooling server>.",
            )
    return [query.text for query in queries]


def unit_vectors(raw: NDArray[Any], dim: int | None, encoder: str) -> NDArray[np.float32]:
    """Matryoshka truncation: the first `dim` numbers of every row, then length 1. In this order.

    Args:
        raw: [n, native] vectors.
        dim: Numbers to keep; None keeps all.
        encoder: Name for errors.

    Raises:
        UsageError: `dim` is larger than the native dimension or not positive.
        BadData: A vector is not finite, or zero.
    """
    import numpy as np

    native = raw.shape[1]
    if dim is not None and not 1 <= dim <= native:
        raise UsageError(f"{dim} dimensions of an encoder that has {native}", where=encoder)
    cut = np.asarray(raw[:, :dim], dtype=np.float64)
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0.0))
    if bad.size:
        kind = "zero" if np.isfinite(lengths[bad[0], 0]) else "not finite"
        raise BadData(f"vector {bad[0]} of {len(raw)} is {kind}", where=encoder)
    return np.ascontiguousarray(cut / lengths, dtype=np.float32)
