"""The datasets and corpora that m4rag can read, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from m4rag.corpus.left_out import LeftOut
from m4rag.errors import BadData, UsageError
from m4rag.languages import lookup
from m4rag.manifests import MANIFEST, Manifest
from m4rag.schema import Document, Question
from m4rag.settings import settings
from m4rag.shards import read_folder, read_table

if TYPE_CHECKING:
    import pyarrow as pa

    from m4rag.datasets.sources import Source

IMAGES = "images"
"""Folder for embedded images: `<home>/images`, and `images` in a folder that `m4rag data prepare` wrote."""


@dataclass(frozen=True)
class Dataset:
    """A set of questions.

    Attributes:
        name: What `--dataset` takes.
        about: One line on what it asks.
        contents: Its size in words.
        license: SPDX identifier of the data's licence.
        items: What `--items` must name, None where the questions are inside the package.
        corpus: The source of documents that holds its gold documents, None if no question names one.
    """

    name: str
    about: str
    contents: str
    license: str
    items: str | None
    corpus: str | None


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="sample",
            about="things of everyday culture, one image each: the benchmark that comes with m4rag",
            contents="inside the package",
            license="CC-BY-4.0",
            items=None,
            corpus="sample",
        ),
        Dataset(
            name="museum",
            about="made-up facts about the sample's things: what a model can know only from training or retrieval",
            contents="864 questions in 16 languages, inside the package",
            license="CC-BY-4.0",
            items=None,
            corpus="museum",
        ),
        Dataset(
            name="worldcuisines",
            about="name or origin of the dish in the image, without, with true and with misleading context",
            contents="60,000 questions (test_large), 30 varieties of 24 languages",
            license="CC-BY-SA-4.0",
            items="Parquet or JSONL of v1 or v1.1, a folder of them, or hf://datasets/OWNER/NAME@COMMIT",
            corpus="worldcuisines-kb",
        ),
        Dataset(
            name="cvqa",
            about="everyday culture in a picture, asked in English and in the language of its place",
            contents="20,748 questions (10,374 in English and natively), 39 language-country pairs of 31 languages",
            license="various: each picture has its own, some are for research only",
            items="Parquet with embedded images, a folder of it, or hf://datasets/OWNER/NAME@COMMIT",
            corpus=None,
        ),
    )
}

SOURCES = {
    "sample": "the documents of the sample benchmark; needs no path",
    "museum": "the museum's cards and the sample's articles; needs no path",
    "worldcuisines-kb": "WorldCuisines' knowledge base of dishes: CSV, Parquet or JSONL",
    "jsonl": "any documents: one JSON object a line with the fields of m4rag.schema.Document",
    "articles": "articles as M4-RAG's crawlers write them: JSONL of id, title, url and sections",
    "mediawiki-dump": "a wiki's pages-articles dump: XML, plain or bz2",
    "mediawiki-api": "pages fetched from --site: a file with a title or #page-id a line",
}
"""Source name to what it reads."""

PACKAGED = frozenset({"sample", "museum"})
"""Sources inside the package."""


def load_questions(
    name: str, items: Path | None = None, limit: int | None = None, images: Path | None = None
) -> list[Question]:
    """The questions of a dataset, checked.

    Args:
        name: A name in `DATASETS`.
        items: The file or folder they are read from, a folder that `m4rag data prepare` wrote, or an address on the hub
            (`m4rag.datasets.sources.HUB_FORM`); None for datasets inside the package.
        limit: Take at most this many, by the rule of `m4rag.datasets.sampling.balanced`; None for all.
        images: Folder that embedded images of these questions are written to; None for `<home>/images`.

    Raises:
        UsageError: Unknown dataset, a missing or needless `items`, a limit below 1.
        BadData: The data breaks its contract; names the row.
        Unavailable: The data is on the hub and can't be fetched.
    """
    from m4rag.datasets.sampling import balanced

    check_items(name, items)
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} questions", remedy="Use at least 1.")

    def limited(questions: list[Question]) -> list[Question]:
        return questions if limit is None else balanced(questions, limit)

    if items is None:
        return limited(_packaged(name))
    source = _source(items)
    if _prepared(source):
        return limited(_stored(name, source))
    if name == "cvqa":
        return _embedded(source, limited, (images or settings().home / IMAGES).absolute())
    return limited(_published(name, source))


def load_items(name: str, items: Path | None) -> pa.Table:
    """The questions of a dataset as one unchecked table, for the guards and for scoring by column.

    Args:
        name: A name in `DATASETS`.
        items: As for `load_questions`.

    Returns:
        A table with the columns `m4rag.datasets.items.ITEMS`, for CVQA also those of `m4rag.datasets.cvqa.read_items`.

    Raises:
        UsageError: Unknown dataset, or a missing or needless `items`.
        BadData: The file is unreadable or of no known layout.
        Unavailable: The data is on the hub and can't be fetched.
    """
    from m4rag.datasets import cvqa, worldcuisines
    from m4rag.datasets.items import items_table

    check_items(name, items)
    if items is None:
        return items_table(_packaged(name))
    source = _source(items)
    if _prepared(source):
        return _stored_table(name, source)
    return (
        cvqa.read_items(source.path, source.root.absolute())
        if name == cvqa.NAME
        else worldcuisines.read_items(source.path)
    )


def image_root(items: Path | None) -> Path:
    """The folder that relative image paths of questions start in.

    Args:
        items: As for `load_questions`.
    """
    return Path() if items is None else _source(items).root


def load_documents(source: str, *paths: Path, left_out: LeftOut | None = None) -> Iterator[Document]:
    """The documents of a source in a fixed order, read as they are asked for.

    Args:
        source: A name in `SOURCES`, but not `mediawiki-api` (see `m4rag.corpus.mediawiki_api.fetch`).
        paths: The files they are read from; none for `sample` and `museum`.
        left_out: Counts what is in the files and becomes no document.

    Raises:
        UsageError: Unknown source, or missing or needless paths.
        BadData: While iterating: a row breaks its contract, or a document id occurs twice.
    """
    check_source(source, paths)
    if source in PACKAGED:
        from m4rag.datasets import museum, sample

        return _distinct(sample.documents() if source == "sample" else museum.documents(), source)
    left_out = left_out or LeftOut()
    if source == "articles":
        from m4rag.corpus import articles

        return articles.documents(paths, left_out)
    return _distinct(chain.from_iterable(_read(source, path, left_out) for path in paths), ", ".join(map(str, paths)))


def check_source(source: str, paths: Sequence[Path]) -> None:
    """Check that there is such a source, and files where it needs them.

    Raises:
        UsageError: There is not; says what is missing or needless.
    """
    if source not in SOURCES:
        raise UsageError(f"unknown source {source!r}", remedy=f"Known: {', '.join(sorted(SOURCES))}.")
    if source in PACKAGED and paths:
        raise UsageError(f"the {source} is inside the package", where=str(paths[0]), remedy="Leave the path out.")
    if source not in PACKAGED and not paths:
        raise UsageError(f"{source} is read from a file", remedy="Name the file.")


def _read(source: str, path: Path, left_out: LeftOut) -> Iterator[Document]:
    if source == "jsonl":
        return _jsonl(path)
    if source == "mediawiki-dump":
        from m4rag.corpus.mediawiki_dump import read_dump

        return read_dump(path, left_out)
    from m4rag.datasets import worldcuisines

    return worldcuisines.documents(path)


def check_items(name: str, items: Path | None) -> None:
    """Refuse a dataset that there is not, or with files that it does not have or lacks.

    Raises:
        UsageError: That.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown dataset {name!r}", remedy=f"Known: {', '.join(sorted(DATASETS))}.")
    wanted = DATASETS[name].items
    if wanted is None and items is not None:
        raise UsageError(f"{name} is inside the package", where=str(items), remedy="Leave --items out.")
    if wanted is not None and items is None:
        raise UsageError(f"{name} is read from files", remedy=f"Name them with --items: {wanted}.")


def _source(items: Path) -> Source:
    from m4rag.datasets.sources import find

    return find(items)


def _packaged(name: str) -> list[Question]:
    from m4rag.datasets import museum, sample

    return list(museum.questions() if name == museum.NAME else sample.questions())


def _published(name: str, source: Source) -> list[Question]:
    from m4rag.datasets import worldcuisines
    from m4rag.datasets.guards import refuse

    table = worldcuisines.read_items(source.path)
    refuse(table, name, source.path)
    return worldcuisines.questions(table, source.root.absolute())


def _embedded(source: Source, limited: Callable[[list[Question]], list[Question]], images: Path) -> list[Question]:
    """Questions whose images are inside the table: those of the questions taken become files."""
    from m4rag.datasets import cvqa
    from m4rag.datasets.guards import refuse

    table = cvqa.read_items(source.path, source.root.absolute())
    refuse(table, cvqa.NAME, source.path)
    taken = limited(cvqa.questions(table, images))
    cvqa.extract(source.path, taken, images)
    return taken


def _prepared(source: Source) -> bool:
    return (source.path / MANIFEST).exists()


def _stored(name: str, source: Source) -> list[Question]:
    """The questions of a prepared folder; images inside it are found wherever the folder was moved."""
    from m4rag.datasets.items import image_location

    found = []
    for question in read_folder(source.path, Question):
        _same_dataset(name, question.dataset, source.path)
        image = image_location(question.image, source.path.absolute()) if question.image else None
        found.append(question.model_copy(update={"image": image}))
    return found


def _stored_table(name: str, source: Source) -> pa.Table:
    import pyarrow as pa

    from m4rag.datasets.cvqa import DETAILS, NAME
    from m4rag.datasets.items import stored_items

    details = DETAILS if name == NAME else ()
    parts = [read_table(source.path / file.name) for file in Manifest.read(source.path).files]
    for part in parts:
        for dataset in part["dataset"].unique().to_pylist():
            _same_dataset(name, dataset, source.path)
    return pa.concat_tables([stored_items(part, details) for part in parts]).combine_chunks()


def _same_dataset(asked: str, found: str, where: Path) -> None:
    if found != asked:
        raise BadData(f"the questions are of {found}, not of {asked}", where=str(where), remedy=f"--dataset {found}.")


def _distinct(documents: Iterable[Document], where: str) -> Iterator[Document]:
    seen: set[str] = set()
    for document in documents:
        if document.document_id in seen:
            raise BadData(f"document id {document.document_id!r} occurs twice", where=where)
        seen.add(document.document_id)
        yield document


def _jsonl(path: Path) -> Iterator[Document]:
    try:
        stream = path.open(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise BadData("no such file", where=str(path)) from None
    with stream:
        for number, line in enumerate(stream, start=1):
            where = f"{path} line {number}"
            try:
                document = Document.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(map(str, first["loc"])) or "the line"
                raise BadData(f"{field}: {first['msg']}", where=where) from None
            try:
                lookup(document.language)
            except UsageError as error:
                raise BadData(error.what, where=where, remedy=error.remedy) from None
            yield document
