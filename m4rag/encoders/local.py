"""Text encoders that run in this process by sentence-transformers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m4rag.corpus.chunker import Tokenizer
from m4rag.encoders.base import PASSAGE, Query, passage_text, text_only, unit_vectors
from m4rag.errors import BadData, Unavailable, UsageError
from m4rag.manifests import digest, file_digest
from m4rag.schema import Chunk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)

BATCH = 64

SPARE_TOKENS = 2
"""Kept free in the window: joining title and text may add a token where the two meet."""


class SentenceTransformerEncoder:
    """A sentence-transformers model from a folder; nothing is ever fetched.

    Args:
        folder: The model's folder.
        name: Short name for tables.
        spec: What `load` was given.
        languages: What it was trained on, None if unknown.
        dim: Numbers to keep of each vector, None for all.

    Raises:
        UsageError: The folder is not a sentence-transformers model, or `dim` is larger than it has.
        Unavailable: sentence-transformers is not installed.
    """

    modalities = ("text",)

    def __init__(
        self, folder: Path, *, name: str, spec: str, languages: tuple[str, ...] | None, dim: int | None = None
    ) -> None:
        self.name = name
        self.spec = spec
        self.languages = languages
        self._folder = folder
        self._model = _load(folder)
        native = self._model.get_embedding_dimension()
        if native is None:
            raise UsageError("the model does not say how long its vectors are", where=str(folder))
        if dim is not None and not 1 <= dim <= native:
            raise UsageError(f"{dim} dimensions of an encoder that has {native}", where=name)
        self.dim: int = dim or native

    @cached_property
    def _weights(self) -> str:
        files = sorted(path for path in self._folder.rglob("*") if path.is_file() and path.suffix != ".md")
        return digest([[str(path.relative_to(self._folder)), file_digest(path)] for path in files])

    @property
    def identity(self) -> dict[str, Any]:
        """Digest of every file of the model, the vectors' length, and how a passage is written."""
        return {"kind": "sentence-transformers", "model": self._weights, "dim": self.dim, "passage": PASSAGE}

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer."""
        return Tokenizer(name=f"model:{self._weights[:12]}", count=self._count)

    @property
    def max_tokens(self) -> int | None:
        """The model's window without the tokens that mark begin and end."""
        window = self._model.max_seq_length
        if window is None:
            return None
        return int(window) - int(self._model.tokenizer.num_special_tokens_to_add()) - SPARE_TOKENS

    def _count(self, texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        ids = self._model.tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        return [len(each) for each in ids]

    def encode_queries(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Queries to float32 [n, dim], every row of length 1.

        A query longer than the model's window is read as far as the window goes; the log says how many were.

        Raises:
            UsageError: A query has an image.
        """
        texts = text_only(queries, self.name)
        if long := self._too_long(texts):
            log.warning(
                "%d of %d queries are longer than %s reads; their ends do not count", long, len(texts), self.name
            )
        return self._encode(texts, "query")

    def encode_passages(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        """Passages, titles included, to float32 [n, dim], every row of length 1.

        Raises:
            BadData: A passage is longer than the model's window.
        """
        texts = [passage_text(chunk) for chunk in chunks]
        if long := self._too_long(texts):
            raise BadData(
                f"{long} of {len(texts)} passages are longer than the {self._model.max_seq_length} tokens it reads",
                where=self.name,
                remedy="Cut the corpus with this encoder's tokenizer and fewer tokens a passage.",
            )
        return self._encode(texts, "document")

    def _too_long(self, texts: Sequence[str]) -> int:
        window = self.max_tokens
        return 0 if window is None else sum(count > window + SPARE_TOKENS for count in self._count(texts))

    def _encode(self, texts: list[str], role: str) -> NDArray[np.float32]:
        import numpy as np

        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        encode = self._model.encode_query if role == "query" else self._model.encode_document
        raw = encode(texts, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True)
        return unit_vectors(np.asarray(raw), self.dim, self.name)


def _load(folder: Path) -> SentenceTransformer:
    if not (folder / "modules.json").exists():
        raise UsageError(
            "not a sentence-transformers model: no modules.json", where=str(folder), remedy="Name the model's folder."
        )
    hide_broken_torchvision()
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise Unavailable(
            f"sentence-transformers can't be used: {error}", where=str(folder), remedy="pip install 'm4rag[local]'"
        ) from None
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return SentenceTransformer(str(folder), local_files_only=True)


def hide_broken_torchvision() -> None:
    """Make transformers do without torchvision where it is installed but can't be imported.

    PyPI's torchvision is built for CUDA and fails beside a CPU build of torch; transformers imports it if it is there,
    and nothing here needs it.
    """
    try:
        import torchvision  # type: ignore[import-untyped]  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        sys.modules["torchvision"] = None  # type: ignore[assignment]
