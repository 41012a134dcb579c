"""Documents become a searchable, immutable collection; what is served is never touched.

The stages are passages, vectors, rows. The first two are folders under `<home>/index` named by what determines them,
so a killed build continues, an unchanged one does nothing, and two encoders share the passages they cut alike. Rows are
written last and only those that are missing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m4rag.corpus import chunks as chunking
from m4rag.corpus.chunker import MAX_TOKENS, OVERLAP, PORTABLE, Tokenizer
from m4rag.encoders import Encoder, load
from m4rag.encoders.loading import MINILM
from m4rag.errors import BadData, CheckFailed, UsageError
from m4rag.index import lexical, vectors
from m4rag.index.collection import CHANNELS, Channel, Description, base_name, check_base, row
from m4rag.index.store import Store, connect
from m4rag.index.vectors import read_vectors
from m4rag.manifests import MANIFEST, DataFile, Manifest, short
from m4rag.progress import Progress, silent
from m4rag.schema import Chunk
from m4rag.settings import Settings
from m4rag.shards import read_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

UPSERT_ROWS = 256
"""Rows a write: 4 MB of 4096-d vectors, well below what servers take in one message."""


@dataclass(frozen=True)
class Recipe:
    """How an index is made from a corpus.

    Attributes:
        base: Name that production will read.
        channels: `dense`, `bm25` or both.
        encoder: Makes the vectors; None without `dense`.
        max_tokens: Most tokens of a passage, title included; less if the encoder reads less.
        overlap: Most tokens that a passage repeats of the one before it.
    """

    base: str
    channels: tuple[Channel, ...]
    encoder: Encoder | None
    max_tokens: int = MAX_TOKENS
    overlap: int = OVERLAP

    def __post_init__(self) -> None:
        """Refuse what can't be built."""
        check_base(self.base)
        if not self.channels:
            raise UsageError("no channel", remedy="Build dense, bm25 or both.")
        if ("dense" in self.channels) != (self.encoder is not None):
            raise UsageError("the dense channel needs an encoder, and only it does")

    @property
    def tokenizer(self) -> Tokenizer:
        """How its passages are counted."""
        return tokenizer_of(self.encoder)

    @property
    def window(self) -> int:
        """Most tokens of its passages."""
        return window_of(self.encoder, self.max_tokens)


def tokenizer_of(encoder: Encoder | None) -> Tokenizer:
    """The encoder's own count where it has one."""
    return (encoder.tokenizer if encoder else None) or PORTABLE


def window_of(encoder: Encoder | None, max_tokens: int = MAX_TOKENS) -> int:
    """Tokens of a passage: what was asked for, or what the encoder reads if that is less."""
    reads = encoder.max_tokens if encoder else None
    return max_tokens if reads is None else min(max_tokens, reads)


@dataclass(frozen=True)
class Built:
    """What a build did.

    Attributes:
        description: The collection.
        documents: Documents read.
        empty: Of these, without text.
        embedded: Passages encoded by this call.
        written: Rows written by this call.
        served: The collection that the alias points to now.
    """

    description: Description
    documents: int
    empty: int
    embedded: int
    written: int
    served: str

    def payload(self) -> dict[str, Any]:
        """The result as JSON."""
        return {
            "collection": self.description.name,
            "base": self.description.base,
            "digest": self.description.digest,
            "channels": list(self.description.channels),
            "encoder": self.description.encoder,
            "dim": self.description.dim,
            "documents": self.documents,
            "empty_documents": self.empty,
            "rows": self.description.rows,
            "embedded": self.embedded,
            "written": self.written,
            "served": self.served,
        }


def build_index(
    documents: Path,
    base: str,
    settings: Settings,
    *,
    encoder: str = MINILM,
    channels: tuple[Channel, ...] = CHANNELS,
    dim: int | None = None,
    max_tokens: int = MAX_TOKENS,
    overlap: int = OVERLAP,
    progress: Progress = silent,
) -> Built:
    """Build an index in the Milvus of the settings, or continue, or find that it is there.

    The first collection of a base is served at once (nothing was); later ones wait for `promote`.

    Args:
        documents: A complete folder of `Document` rows.
        base: Name that production will read; hyphens and dots become underscores.
        settings: Where Milvus, the encoder and the local folder are.
        encoder: What `m4rag.encoders.load` makes the encoder from; not used without the dense channel.
        channels: `dense`, `bm25` or both.
        dim: Keep this many numbers of each vector; None keeps all.
        max_tokens: Most tokens of a passage, title included.
        overlap: Most tokens that a passage repeats of the one before it.
        progress: Shows long work.

    Raises:
        UsageError: A name, number or encoder that makes no sense.
        Unavailable: Milvus or the encoder is missing or lacks something.
        BadData: The corpus or a vector breaks its contract.
    """
    Manifest.read(documents)
    check_base(base_name(base))
    with connect(settings) as store:
        store.capabilities.require(channels)
    recipe = Recipe(
        base=base_name(base),
        channels=channels,
        encoder=load(encoder, settings, dim=dim) if "dense" in channels else None,
        max_tokens=max_tokens,
        overlap=overlap,
    )
    # Embedding may take hours, in which nobody else could open an embedded Milvus.
    prepared = prepare(documents, settings.home, recipe, progress)
    with connect(settings) as store:
        return write(store, prepared, recipe, progress)


@dataclass(frozen=True)
class Prepared:
    """The passages of a corpus and their vectors, on disk.

    Attributes:
        chunks: Folder of passages.
        vectors: Folders of their vectors, each of some parts; none without the dense channel.
        embedded: Passages that this call encoded.
    """

    chunks: Path
    vectors: tuple[Path, ...] = ()
    embedded: int = 0


def prepare(documents: Path, home: Path, recipe: Recipe, progress: Progress) -> Prepared:
    """Cut and embed a corpus, or continue, or find that it is done. Needs no Milvus.

    Args:
        documents: A complete folder of `Document` rows.
        home: Folder for passages and vectors.
        recipe: How the index is made.
        progress: Shows long work.

    Raises:
        BadData: The corpus or a vector breaks its contract.
        Unavailable: The encoder stopped answering.
    """
    chunks = cut(documents, home, recipe.tokenizer, recipe.window, recipe.overlap, progress)
    if recipe.encoder is None:
        return Prepared(chunks)
    folder, embedded = embed(chunks, Manifest.read(chunks).files, home, recipe.encoder, progress)
    return Prepared(chunks, (folder,), embedded)


def write(store: Store, prepared: Prepared, recipe: Recipe, progress: Progress) -> Built:
    """Write a collection, or the rows that it lacks, or find that it is there.

    The first collection of a base is served at once (nothing was); later ones wait for `promote`.

    Args:
        store: The Milvus that will hold it.
        prepared: Its passages and vectors.
        recipe: How they were made.
        progress: Shows long work.

    Raises:
        Unavailable: The Milvus lacks a channel, or stopped answering.
        BadData: A text does not fit its column, a passage comes twice, or the vectors are not those of the passages.
    """
    store.capabilities.require(recipe.channels)
    passages = Manifest.read(prepared.chunks)
    description = describe(passages, recipe)
    _warn(store, description, passages, recipe)
    vectors_of = vectors.locate(prepared.chunks, prepared.vectors, recipe.encoder) if recipe.encoder else {}
    written = _fill(store, description, prepared.chunks, vectors_of, progress)
    served = store.aliases().get(recipe.base)
    if served is None:
        store.point(recipe.base, description.name)
        served = description.name
    return Built(
        description=description,
        documents=passages.counts["documents"],
        empty=passages.counts["empty"],
        embedded=prepared.embedded,
        written=written,
        served=served,
    )


def describe(passages: Manifest, recipe: Recipe) -> Description:
    """The collection that these passages and this recipe determine."""
    encoder = recipe.encoder
    return Description(
        base=recipe.base,
        chunks=passages.digest,
        rows=passages.rows,
        channels=recipe.channels,
        dim=encoder.dim if encoder else 0,
        encoder=encoder.name if encoder else "",
        encoder_spec=encoder.spec if encoder else "",
        encoder_identity=encoder.identity if encoder else {},
        lexical=lexical.VERSION if "bm25" in recipe.channels else 0,
        created=time.time(),
    )


def cut(documents: Path, home: Path, tokenizer: Tokenizer, max_tokens: int, overlap: int, progress: Progress) -> Path:
    """Cut a corpus into passages under `<home>/index`, or continue, or find that it is done.

    Args:
        documents: A complete folder of `Document` rows.
        home: Where the passages go.
        tokenizer: Counts tokens.
        max_tokens: Most tokens of a passage, title included.
        overlap: Most tokens that a passage repeats of the one before it.
        progress: Shows long work.

    Returns:
        The folder of passages.

    Raises:
        BadData: The corpus breaks its contract.
    """
    settings = {"max_tokens": max_tokens, "overlap": overlap}
    identity = chunking.plan(documents, tokenizer, **settings).identity
    folder = home / "index" / f"chunks-{short(identity)}"
    if not _complete(folder):
        with progress("documents", Manifest.read(documents).rows) as advance:
            chunking.chunk_corpus(documents, folder, tokenizer, **settings, progress=advance)
    return folder


def embed(
    chunks: Path, parts: Sequence[DataFile], home: Path, encoder: Encoder, progress: Progress
) -> tuple[Path, int]:
    """Embed parts of a folder of passages under `<home>/index`, or continue, or find that it is done.

    Args:
        chunks: The folder of passages.
        parts: Those of its parts to embed.
        home: Where the vectors go.
        encoder: Makes them.
        progress: Shows long work.

    Returns:
        The folder of vectors, and how many this call made.

    Raises:
        BadData: A vector breaks its contract.
        Unavailable: The encoder stopped answering.
    """
    folder = home / "index" / f"vectors-{short(vectors.plan(parts, encoder).identity)}"
    if _complete(folder):
        return folder, 0
    with progress("vectors", sum(part.rows for part in parts)) as advance:
        return folder, vectors.embed(chunks, parts, folder, encoder, advance)


def _complete(folder: Path) -> bool:
    """Whether a folder that is named by what determines it has all its parts."""
    return (folder / MANIFEST).exists() and all((folder / file.name).exists() for file in Manifest.read(folder).files)


def _fill(
    store: Store, description: Description, chunks: Path, vectors_of: Mapping[str, Path], progress: Progress
) -> int:
    """Write the rows that are missing, index and load; nothing if nothing is missing."""
    if store.finished(description):
        return 0
    resumed = description.name in store.collections()
    if not resumed:
        store.create(description)
    written = 0
    with progress("rows", description.rows) as advance:
        for batch in _batches(description, chunks, vectors_of):
            there = store.present(description, [each["chunk_id"] for each in batch]) if resumed else set()
            missing = [each for each in batch if each["chunk_id"] not in there]
            if missing:
                store.upsert(description, missing)
            written += len(missing)
            advance(len(batch))
    store.finish(description)
    if (rows := store.count(description.name)) != description.rows:
        raise CheckFailed(
            f"{rows} rows after writing {description.rows}", where=description.name, remedy="Drop it and build again."
        )
    return written


def _batches(description: Description, chunks: Path, vectors_of: Mapping[str, Path]) -> Iterator[list[dict[str, Any]]]:
    """All rows of a collection, part by part, a write at a time."""
    seen: set[str] = set()
    for file in Manifest.read(chunks).files:
        dense = read_vectors(vectors_of[file.name], description.dim) if vectors_of else {}
        rows = (_row(description, chunk, dense) for chunk in read_rows(chunks / file.name, Chunk))
        while batch := list(islice(rows, UPSERT_ROWS)):
            for each in batch:
                if each["chunk_id"] in seen:
                    raise BadData(f"passage id {each['chunk_id']} comes twice", where=str(chunks))
                seen.add(each["chunk_id"])
            yield batch


def _row(description: Description, chunk: Chunk, dense: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    words = lexical.code(f"{chunk.title}\n{chunk.text}") if "bm25" in description.channels else None
    return row(chunk, words, dense.get(chunk.chunk_id))


def _warn(store: Store, description: Description, passages: Manifest, recipe: Recipe) -> None:
    """Say what will work worse than a reader may think."""
    most = store.capabilities.comfortable_rows
    if most is not None and description.rows > most:
        log.warning(
            "%d passages: the embedded Milvus reads all of them for every search; beyond %d use a server",
            description.rows,
            most,
        )
    trained = recipe.encoder.languages if recipe.encoder else None
    if trained is not None and (others := sorted(set(passages.counts["languages"]) - set(trained))):
        log.warning(
            "encoder %s was trained on %s only; its vectors of %s say little",
            description.encoder,
            ", ".join(trained),
            ", ".join(others),
        )
