"""A folder of documents becomes a folder of passages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from m4rag.corpus.chunker import MAX_TOKENS, OVERLAP, PORTABLE, Tokenizer, chunk_document
from m4rag.errors import BadData
from m4rag.manifests import Manifest
from m4rag.schema import Chunk, Document
from m4rag.shards import read_table, spread_folder

VERSION = 1
"""Raised when the same settings would cut differently."""

PART_ROWS = 512
"""Most passages a part: what a killed embedding does again at most."""


def chunk_corpus(
    documents: Path,
    chunks: Path,
    tokenizer: Tokenizer = PORTABLE,
    *,
    max_tokens: int = MAX_TOKENS,
    overlap: int = OVERLAP,
    progress: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Cut every document of a folder, part by part, on all cores where the tokenizer allows it.

    In memory are, for each core, one part of the documents and one of the passages; and the id of every document.

    Args:
        documents: A complete folder of `Document` rows.
        chunks: Target folder.
        tokenizer: Counts tokens.
        max_tokens: Most tokens of a passage, title included.
        overlap: Most tokens that a passage repeats of the one before it.
        progress: Called with the number of documents after each part of them.

    Returns:
        The target's manifest; its counts say how many documents there were, how many had no text, and how many
        passages each language has.

    Raises:
        BadData: Two documents have one id, a title is too long, or no document has text.
    """
    made_by = plan(documents, tokenizer, max_tokens=max_tokens, overlap=overlap)
    read = _distinct(documents)
    return spread_folder(
        documents,
        Document,
        chunks,
        Chunk,
        partial(chunk_document, tokenizer=tokenizer, max_tokens=max_tokens, overlap=overlap),
        made_by,
        shard_rows=PART_ROWS,
        # A model's tokenizer uses all cores by itself and cannot be sent to another process.
        parallel=tokenizer is PORTABLE,
        counts=partial(_counts, documents, read),
        progress=progress,
    )


def _distinct(documents: Path) -> int:
    """How many documents there are, once it is sure that no two share an id."""
    seen: set[str] = set()
    for file in Manifest.read(documents).files:
        for document_id in read_table(documents / file.name, ["document_id"])["document_id"].to_pylist():
            if document_id in seen:
                raise BadData(
                    f"document id {document_id!r} comes twice",
                    where=str(documents),
                    remedy="Make ids unique and ingest again.",
                )
            seen.add(document_id)
    return len(seen)


def _counts(documents: Path, read: int, parts: Sequence[Path]) -> dict[str, Any]:
    """Counted on the disk, where the passages that an earlier, killed call made are as well."""
    languages: Counter[str] = Counter()
    with_text = 0
    for part in parts:
        table = read_table(part, ["index", "language"])
        languages.update(table["language"].to_pylist())
        with_text += table["index"].to_pylist().count(0)
    if not languages:
        raise BadData(f"none of {read} documents has text", where=str(documents))
    return {"documents": read, "empty": read - with_text, "languages": dict(sorted(languages.items()))}


def plan(documents: Path, tokenizer: Tokenizer, *, max_tokens: int = MAX_TOKENS, overlap: int = OVERLAP) -> Manifest:
    """What `chunk_corpus` would make: its manifest without files, whose identity names the work."""
    config = {"version": VERSION, "tokenizer": tokenizer.name, "max_tokens": max_tokens, "overlap": overlap}
    inputs = {"documents": Manifest.read(documents).digest}
    return Manifest(kind="chunks", command="index build", config=config, inputs=inputs)
