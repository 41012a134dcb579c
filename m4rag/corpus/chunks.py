"""A folder of documents becomes a folder of passages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from m4rag.corpus.chunker import MAX_TOKENS, OVERLAP, PORTABLE, Tokenizer, chunk_document
from m4rag.errors import BadData
from m4rag.manifests import Manifest
from m4rag.schema import Chunk, Document
from m4rag.shards import read_folder, write_folder

VERSION = 1
"""Raised when the same settings would cut differently."""

PART_ROWS = 512
"""Passages a part: what a killed embedding does again at most."""


def chunk_corpus(
    documents: Path,
    chunks: Path,
    tokenizer: Tokenizer = PORTABLE,
    *,
    max_tokens: int = MAX_TOKENS,
    overlap: int = OVERLAP,
    progress: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Cut every document of a folder.

    Args:
        documents: A complete folder of `Document` rows.
        chunks: Target folder.
        tokenizer: Counts tokens.
        max_tokens: Most tokens of a passage, title included.
        overlap: Most tokens that a passage repeats of the one before it.
        progress: Called with finished documents.

    Returns:
        The target's manifest; its counts say how many documents there were, how many had no text, and how many
        passages each language has.

    Raises:
        BadData: Two documents have one id, a title is too long, or no document has text.
    """
    made_by = plan(documents, tokenizer, max_tokens=max_tokens, overlap=overlap)
    seen: set[str] = set()
    empty = 0
    languages: Counter[str] = Counter()

    def rows() -> Iterator[Chunk]:
        nonlocal empty
        for document in read_folder(documents, Document):
            if document.document_id in seen:
                raise BadData(
                    f"document id {document.document_id!r} comes twice",
                    where=str(documents),
                    remedy="Make ids unique and ingest again.",
                )
            seen.add(document.document_id)
            made = chunk_document(document, tokenizer, max_tokens=max_tokens, overlap=overlap)
            empty += not made
            languages[document.language] += len(made)
            yield from made
            progress(1)
        if not languages.total():
            raise BadData(f"none of {len(seen)} documents has text", where=str(documents))

    def counts() -> dict[str, Any]:
        return {"documents": len(seen), "empty": empty, "languages": dict(sorted(languages.items()))}

    return write_folder(chunks, Chunk, rows(), made_by, shard_rows=PART_ROWS, counts=counts)


def plan(documents: Path, tokenizer: Tokenizer, *, max_tokens: int = MAX_TOKENS, overlap: int = OVERLAP) -> Manifest:
    """What `chunk_corpus` would make: its manifest without files, whose identity names the work."""
    config = {"version": VERSION, "tokenizer": tokenizer.name, "max_tokens": max_tokens, "overlap": overlap}
    inputs = {"documents": Manifest.read(documents).digest}
    return Manifest(kind="chunks", command="index build", config=config, inputs=inputs)
