"""A build in steps, for machines that share nothing but files: plan, cut, embed a shard, load.

Each step makes the encoder anew, so each is told the digest of the one that the build was planned with: a server that
was exchanged in between is refused instead of giving an index of two encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m4rag.corpus.chunker import OVERLAP
from m4rag.encoders import Encoder, load
from m4rag.errors import BadData, UsageError
from m4rag.index.build import Built, Prepared, Recipe, cut, embed, tokenizer_of, window_of, write
from m4rag.index.collection import CHANNELS, Channel, base_name, check_base
from m4rag.index.store import connect
from m4rag.manifests import DataFile, Manifest, digest
from m4rag.progress import Progress, silent
from m4rag.settings import Settings


@dataclass(frozen=True)
class Shard:
    """A share of the passages that one machine embeds: every `of`-th part, from `number` on.

    Attributes:
        number: 0-based.
        of: How many shards there are.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        """Refuse a shard that there is not."""
        if not 0 <= self.number < self.of:
            raise UsageError(f"no shard {self.number} of {self.of}")

    def parts(self, chunks: Path) -> tuple[DataFile, ...]:
        """Its parts of a folder of passages."""
        return Manifest.read(chunks).files[self.number :: self.of]


@dataclass(frozen=True)
class PlannedEncoder:
    """The encoder that a build was planned with.

    Attributes:
        spec: What `m4rag.encoders.load` makes it from.
        digest: What it must be.
        dim: Numbers to keep of each vector, 0 for all.
    """

    spec: str
    digest: str
    dim: int = 0

    def load(self, settings: Settings) -> Encoder:
        """Make it.

        Raises:
            BadData: It is another one by now.
            Unavailable: Its package or server is missing.
        """
        encoder = load(self.spec, settings, dim=self.dim or None)
        if (found := digest(encoder.identity)) != self.digest:
            raise BadData(
                f"the encoder is {found[:12]}, the build was planned with {self.digest[:12]}",
                where=self.spec,
                remedy="Start the build again.",
            )
        return encoder


def plan_index(
    base: str, encoder: str, settings: Settings, *, channels: Sequence[Channel], dim: int = 0
) -> PlannedEncoder:
    """Refuse an index that can't be built before its build costs anything.

    Args:
        base: Name that production will read.
        encoder: What `m4rag.encoders.load` makes the encoder from.
        settings: Where Milvus and the encoder are.
        channels: `dense`, or `dense` and `bm25`: without vectors there is nothing to spread over machines.
        dim: Numbers to keep of each vector; 0 keeps all.

    Raises:
        UsageError: A name, number, channel or encoder that makes no sense.
        Unavailable: Milvus or the encoder is missing or lacks something.
    """
    check_base(base_name(base))
    if "dense" not in channels or set(channels) - set(CHANNELS):
        raise UsageError(
            f"channels {', '.join(channels) or 'none'}",
            remedy="Use dense, or dense and bm25. An index of words alone needs no pipeline: m4rag index build.",
        )
    with connect(settings) as store:
        store.capabilities.require(tuple(channels))
    return PlannedEncoder(encoder, digest(load(encoder, settings, dim=dim or None).identity), dim)


def cut_corpus(
    documents: Path,
    settings: Settings,
    *,
    encoder: PlannedEncoder,
    shards: int,
    progress: Progress = silent,
) -> tuple[Path, list[Shard]]:
    """Cut a corpus into the passages that an encoder reads.

    Args:
        documents: A complete folder of `Document` rows.
        settings: Where the encoder and the local folder are.
        encoder: What `plan_index` returned.
        shards: Most shards; a corpus with fewer parts has fewer.
        progress: Shows long work.

    Returns:
        The folder of passages, and the shards that its vectors are made in.

    Raises:
        UsageError: Less than one shard, or no such encoder.
        BadData: The corpus breaks its contract, or the encoder is another one by now.
    """
    if shards < 1:
        raise UsageError(f"{shards} shards", remedy="Use at least one.")
    reads = encoder.load(settings)
    chunks = cut(documents, settings.home, tokenizer_of(reads), window_of(reads), OVERLAP, progress)
    count = min(shards, len(Manifest.read(chunks).files))
    return chunks, [Shard(number, count) for number in range(count)]


def embed_shard(
    chunks: Path,
    shard: Shard,
    settings: Settings,
    *,
    encoder: PlannedEncoder,
    progress: Progress = silent,
) -> tuple[Path, int]:
    """Embed one shard of the passages; one whose folder is complete is not embedded again.

    Args:
        chunks: What `cut_corpus` made.
        shard: One of its shards.
        settings: Where the encoder and the local folder are.
        encoder: What `plan_index` returned.
        progress: Shows long work.

    Returns:
        The folder of vectors, and how many this call made.

    Raises:
        BadData: A vector breaks its contract, or the encoder is another one by now.
        Unavailable: The encoder stopped answering; parts that are done are kept in the local folder.
    """
    makes = encoder.load(settings)
    return embed(chunks, shard.parts(chunks), settings.home, makes, progress)


def load_index(
    chunks: Path,
    vectors: Sequence[Path],
    base: str,
    settings: Settings,
    *,
    encoder: PlannedEncoder,
    channels: tuple[Channel, ...],
    progress: Progress = silent,
) -> Built:
    """Write passages and the vectors of all shards as an immutable collection, or the rows that it lacks.

    Args:
        chunks: What `cut_corpus` made.
        vectors: What `embed_shard` made of each shard.
        base: Name that production will read.
        settings: Where Milvus and the encoder are.
        encoder: What `plan_index` returned.
        channels: As in `plan_index`.
        progress: Shows long work.

    Raises:
        BadData: A part of the passages has no vectors, or they are those of another encoder.
        Unavailable: Milvus is missing or lacks a channel.
    """
    made_with = encoder.load(settings)
    recipe = Recipe(base=base_name(base), channels=channels, encoder=made_with)
    with connect(settings) as store:
        return write(store, Prepared(chunks, tuple(vectors)), recipe, progress)
