"""A source of documents into `<home>/corpus/<name>/documents/`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m4rag.datasets import load_documents
from m4rag.errors import BadData, UsageError
from m4rag.manifests import MANIFEST, Manifest, digest, file_digest, rows_digest
from m4rag.schema import Document
from m4rag.shards import write_folder


@dataclass(frozen=True)
class Ingested:
    """What a corpus holds after `ingest_documents`.

    Attributes:
        folder: Where the documents are.
        rows: Documents.
        languages: Language code to documents, most first.
        without_text: Documents that have a title but no text.
        digest: Digest of the documents.
        unchanged: Whether the folder already held exactly this.
    """

    folder: Path
    rows: int
    languages: dict[str, int]
    without_text: int
    digest: str
    unchanged: bool

    def report(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {**self.__dict__, "folder": str(self.folder)}


def ingest_documents(
    source: str, path: Path | None, home: Path, name: str, *, progress: Callable[[int], None] | None = None
) -> Ingested:
    """Write the documents of a source as a corpus; killed, the same call continues.

    Args:
        source: A name in `m4rag.datasets.SOURCES`.
        path: The file to read, None for `sample`.
        home: `Settings.home`.
        name: Name of the corpus: letters, digits, `_`, `-` and `.`.
        progress: Called with the number of documents just read.

    Raises:
        UsageError: Unknown source, a missing or needless path, or a name that is no folder name.
        BadData: The file is unreadable or breaks its contract, or holds no document.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(f"{name!r} can't name a corpus", remedy="Use letters, digits, '_', '-' and '.'.")
    inputs = _inputs(source, path)
    pictures = _pictures(load_documents(source, path))
    if pictures:
        inputs["pictures"] = digest(list(pictures.values()))
    documents = load_documents(source, path)
    made_by = Manifest(kind="documents", command="corpus ingest", config={"source": source}, inputs=inputs)
    folder = home / "corpus" / name / "documents"
    unchanged = (folder / MANIFEST).exists() and Manifest.read(folder).identity == made_by.identity
    languages: Counter[str] = Counter()
    without_text = 0

    def counted() -> Iterator[Document]:
        nonlocal without_text
        for document in documents:
            languages[document.language] += 1
            without_text += not document.text.strip()
            yield document.model_copy(update={"image_digest": pictures.get(document.image or "")})
            if progress is not None:
                progress(1)
        if not languages:
            raise BadData("no documents", where=str(path))

    manifest = write_folder(
        folder,
        Document,
        counted(),
        made_by,
        counts=lambda: {"languages": dict(languages.most_common()), "without_text": without_text},
    )
    return Ingested(
        folder=folder,
        rows=manifest.rows,
        languages=manifest.counts["languages"],
        without_text=manifest.counts["without_text"],
        digest=manifest.digest,
        unchanged=unchanged,
    )


def _pictures(documents: Iterable[Document]) -> dict[str, str]:
    """Path of each picture that is a file here to its digest, by path: an index changes when a picture does."""
    names = {document.image for document in documents if document.image}
    return {name: file_digest(Path(name)) for name in sorted(names) if Path(name).is_file()}


def _inputs(source: str, path: Path | None) -> dict[str, str]:
    """Digest of what goes in: the file, or the documents inside the package."""
    if path is None:
        return {source: rows_digest(load_documents(source))}
    try:
        return {path.name: file_digest(path)}
    except (FileNotFoundError, IsADirectoryError):
        raise BadData("no such file", where=str(path)) from None
