"""A source of documents into `<home>/corpus/<name>/documents/`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m4rag.corpus.left_out import LeftOut
from m4rag.datasets import PACKAGED, check_source, load_documents
from m4rag.errors import BadData, UsageError
from m4rag.manifests import MANIFEST, Manifest, digest, file_digest, rows_digest
from m4rag.progress import Progress, silent
from m4rag.schema import Document
from m4rag.shards import write_folder

PART_CHARACTERS = 1 << 23
"""Of text in a part, beyond which it ends: what reading, chunking and a killed step hold or do again at once."""

ILLUSTRATED = frozenset({"jsonl", "worldcuisines-kb", *PACKAGED})
"""Sources whose documents can name a picture on this machine."""


@dataclass(frozen=True)
class Ingested:
    """What a corpus holds after `ingest_documents`.

    Attributes:
        folder: Where the documents are.
        rows: Documents.
        languages: Language code to documents, most first.
        licenses: Licence to documents, most first; "" where the source states none.
        without_text: Documents that have a title but no text.
        left_out: Kind to how many of it the source has that became no document, most first.
        revisions: First and last revision id, and oldest and newest revision; empty where documents have none.
        digest: Digest of the documents.
        unchanged: Whether the folder already held exactly this.
    """

    folder: Path
    rows: int
    languages: dict[str, int]
    licenses: dict[str, int]
    without_text: int
    left_out: dict[str, int]
    revisions: dict[str, Any]
    digest: str
    unchanged: bool

    def report(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {**self.__dict__, "folder": str(self.folder)}


@dataclass
class _Tally:
    """What is counted while documents are written."""

    languages: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    without_text: int = 0
    ids: tuple[int, int] | None = None
    times: tuple[str, str] | None = None

    def add(self, document: Document) -> None:
        """Count one more."""
        self.languages[document.language] += 1
        self.licenses[document.license or ""] += 1
        self.without_text += not document.text.strip()
        revision, time = document.extra.get("revision_id"), document.extra.get("revision_time")
        if isinstance(revision, int):
            low, high = self.ids or (revision, revision)
            self.ids = min(low, revision), max(high, revision)
        if isinstance(time, str):
            old, new = self.times or (time, time)
            self.times = min(old, time), max(new, time)

    def counts(self, left_out: LeftOut) -> dict[str, Any]:
        """For the manifest."""
        ids = dict(zip(("first", "last"), self.ids, strict=True)) if self.ids else {}
        times = dict(zip(("oldest", "newest"), self.times, strict=True)) if self.times else {}
        return {
            "languages": dict(self.languages.most_common()),
            "licenses": dict(self.licenses.most_common()),
            "without_text": self.without_text,
            "left_out": dict(left_out.counts.most_common()),
            "revisions": {**ids, **times},
        }


def ingest_documents(
    source: str,
    paths: Sequence[Path],
    home: Path,
    name: str,
    *,
    site: str | None = None,
    progress: Progress = silent,
) -> Ingested:
    """Write the documents of a source as a corpus; killed, the same call continues.

    Args:
        source: A name in `m4rag.datasets.SOURCES`.
        paths: The files to read, none for sources inside the package.
        home: `Settings.home`.
        name: Name of the corpus: letters, digits, `_`, `-` and `.`.
        site: The wiki to fetch from (`m4rag.corpus.mediawiki_api.api_url`); for `mediawiki-api` only.
        progress: Shows how many pages were fetched and how many documents read.

    Raises:
        UsageError: Unknown source, missing or needless paths or site, or a name that is no folder name.
        BadData: A file is unreadable or breaks its contract, or holds no document.
        Unavailable: The site does not answer.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(f"{name!r} can't name a corpus", remedy="Use letters, digits, '_', '-' and '.'.")
    check_source(source, paths)
    if (source == "mediawiki-api") != (site is not None):
        raise UsageError(
            "--source mediawiki-api and --site go together", remedy="Add --site en, say, or leave --site out."
        )
    folder = home / "corpus" / name / "documents"
    left_out = LeftOut()
    pictures: dict[str, str] = {}
    if site is not None:
        made_by, documents = _fetched(paths, site, folder.parent / "fetched", left_out, progress)
    else:
        pictures = _pictures(source, paths)
        made_by, documents = _plan(source, paths, pictures), load_documents(source, *paths, left_out=left_out)
    unchanged = (folder / MANIFEST).exists() and Manifest.read(folder).identity == made_by.identity
    tally = _Tally()

    def counted(advance: Callable[[int], None]) -> Iterator[Document]:
        for document in documents:
            tally.add(document)
            yield document.model_copy(update={"image_digest": pictures.get(document.image or "")})
            advance(1)
        if not tally.languages:
            raise BadData("no documents", where=", ".join(map(str, paths)))

    with progress("documents", None) as advance:
        manifest = write_folder(
            folder,
            Document,
            counted(advance),
            made_by,
            shard_size=PART_CHARACTERS,
            size=lambda document: len(document.text),
            counts=lambda: tally.counts(left_out),
        )
    return Ingested(
        folder=folder,
        rows=manifest.rows,
        languages=manifest.counts["languages"],
        licenses=manifest.counts.get("licenses", {}),
        without_text=manifest.counts["without_text"],
        left_out=manifest.counts.get("left_out", {}),
        revisions=manifest.counts.get("revisions", {}),
        digest=manifest.digest,
        unchanged=unchanged,
    )


def identity(source: str, paths: Sequence[Path]) -> str:
    """Digest of all that decides what a corpus read from files will hold: equal digest, equal documents.

    Args:
        source: A name in `m4rag.datasets.SOURCES`, but not `mediawiki-api`, which reads no files.
        paths: The files, none for sources inside the package.

    Raises:
        UsageError: Unknown source, missing or needless paths.
        BadData: A file is unreadable.
    """
    if source == "mediawiki-api":
        raise UsageError(
            "mediawiki-api fetches and reads no files", remedy="Run m4rag corpus ingest where it may fetch."
        )
    check_source(source, paths)
    return _plan(source, paths, _pictures(source, paths)).identity


def _plan(source: str, paths: Sequence[Path], pictures: dict[str, str]) -> Manifest:
    inputs = _inputs(source, paths)
    if pictures:
        inputs["pictures"] = digest(list(pictures.values()))
    return Manifest(kind="documents", command="corpus ingest", config=_config(source), inputs=inputs)


def _config(source: str) -> dict[str, Any]:
    """What decides the documents beside the files: of wikitext, which code turns it into text."""
    if not source.startswith("mediawiki"):
        return {"source": source}
    from m4rag.corpus import wikitext

    return {"source": source, "wikitext": wikitext.VERSION, "parser": wikitext.parser_version()}


def _fetched(
    paths: Sequence[Path], site: str, folder: Path, left_out: LeftOut, progress: Progress
) -> tuple[Manifest, Iterator[Document]]:
    """Fetch, then read from the disk: what the corpus is made of is the revisions, not the time they were asked for."""
    from m4rag.corpus import mediawiki_api

    if len(paths) > 1:
        raise UsageError(f"{len(paths)} files of titles", remedy="Name one.")
    fetched = mediawiki_api.fetch(paths[0], site, folder, progress=progress)
    config = {**_config(mediawiki_api.NAME), "wiki": fetched.wiki.model_dump(mode="json")}
    config["wiki"]["left_out"] = sorted(fetched.wiki.left_out)
    inputs = {paths[0].name: file_digest(paths[0]), "pages": rows_digest(fetched.pages())}
    made_by = Manifest(kind="documents", command="corpus ingest", config=config, inputs=inputs)
    return made_by, mediawiki_api.read_fetched(fetched, left_out)


def _pictures(source: str, paths: Sequence[Path]) -> dict[str, str]:
    """Path of each picture that is a file here to its digest, by path: an index changes when a picture does."""
    if source not in ILLUSTRATED:
        return {}
    names = {document.image for document in load_documents(source, *paths) if document.image}
    return {name: file_digest(Path(name)) for name in sorted(names) if Path(name).is_file()}


def _inputs(source: str, paths: Sequence[Path]) -> dict[str, str]:
    """Digest of what goes in: the files in their order, or the documents inside the package."""
    if not paths:
        return {source: rows_digest(load_documents(source))}
    inputs: dict[str, str] = {}
    for path in paths:
        try:
            name = path.name if path.name not in inputs else f"{path.name} ({len(inputs) + 1})"
            inputs[name] = file_digest(path)
        except (FileNotFoundError, IsADirectoryError):
            raise BadData("no such file", where=str(path)) from None
    return inputs
