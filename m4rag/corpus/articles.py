"""Articles as M4-RAG's crawlers leave them: one JSON object a line.

    {"id", "pageid", "title", "url", "content": [{"heading", "content": [paragraph], "images": [...], "access_time"}]}

or, flat, `{"id", "text", "language"}`. A record may say more (`license`, `revision_id`, `access_time`, ...); nothing of
it is lost. The crawlers write an empty `content` where a page could not be fetched, and write a page again when another
query finds it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from m4rag.corpus.left_out import LeftOut
from m4rag.corpus.mediawiki import wikipedia_license
from m4rag.errors import BadData, UsageError
from m4rag.languages import lookup
from m4rag.manifests import digest
from m4rag.schema import Document

NAME = "articles"

log = logging.getLogger(__name__)


class Image(BaseModel):
    """A picture of a section. Its address is kept and never fetched."""

    model_config = ConfigDict(extra="forbid")

    src: str
    alt: str = ""
    caption: str = ""


class Section(BaseModel):
    """A heading with its paragraphs."""

    model_config = ConfigDict(extra="forbid")

    heading: str = ""
    content: list[str]
    images: list[Image] = []
    access_time: str | None = None


class Article(BaseModel):
    """One record; fields that are not listed here are kept as they are."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(min_length=1)
    pageid: int | None = None
    title: str = ""
    url: str | None = None
    language: str | None = Field(None, validation_alias=AliasChoices("language", "lang"))
    license: str | None = None
    access_time: str | None = None
    content: list[Section] | Literal[""] | None = None
    text: str | None = None


def documents(paths: Sequence[Path], left_out: LeftOut) -> Iterator[Document]:
    """The articles of files in the order of their lines; of an article that comes again, the first is kept.

    All files are read to their end, so that every defect is told at once. In memory is one line, and the id and a
    digest of every article.

    Args:
        paths: JSONL files.
        left_out: Is told of every article that comes again and of every defect, by file and line. An article without
            text is no defect, but a line on the log.

    Raises:
        BadData: A file is missing, or (after the last line) records were no articles.
    """
    seen: dict[str, str] = {}
    defects = 0
    for path in paths:
        for where, line in _lines(path):
            try:
                document = _document(line)
            except BadData as error:
                left_out.tell("defects", str(error), where=where)
                defects += 1
                continue
            content = digest(document.model_dump(mode="json"))[:16]
            if document.document_id in seen:
                other = content != seen[document.document_id]
                how = "with other content; the first is kept" if other else "unchanged"
                left_out.tell("articles that came again", f"{document.document_id} comes again {how}", where=where)
                continue
            seen[document.document_id] = content
            if not document.text:
                log.warning("%s: %r has no text; was it fetched?", where, document.title)
            yield document
    if defects:
        raise BadData(
            f"{defects} lines are no articles",
            where=", ".join(map(str, paths)),
            remedy="Correct or remove them: each is named above.",
        )


def language_of(url: str) -> str:
    """Language code of a page of Wikipedia, from its address.

    Raises:
        UsageError: No language goes by that subdomain.
    """
    return lookup((urlsplit(url).hostname or "").partition(".")[0]).code


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        stream = path.open("rb")
    except (FileNotFoundError, IsADirectoryError):
        raise BadData("no such file", where=str(path)) from None
    with stream:
        for number, line in enumerate(stream, start=1):
            yield f"{path} line {number}", line


def _document(line: bytes) -> Document:
    try:
        article = Article.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadData(f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg']}") from None
    except ValueError as error:  # bytes that are no UTF-8
        raise BadData(str(error)) from None
    if (article.content is None) == (article.text is None):
        raise BadData("an article has either content or text")
    return Document(
        document_id=f"{NAME}:{article.id}",
        title=article.title,
        text=article.text.strip() if article.text is not None else _text(article.content or []),
        language=_language(article),
        source=NAME,
        url=article.url,
        license=article.license or wikipedia_license(article.url),
        extra=_extra(article),
    )


def _language(article: Article) -> str:
    try:
        if article.language is not None:
            return lookup(article.language).code
        if article.url is None:
            raise BadData("neither a language nor a url that tells it")
        return language_of(article.url)
    except UsageError as error:
        raise BadData(error.what, remedy=error.remedy) from None


def _text(sections: Sequence[Section]) -> str:
    """Headings and paragraphs with blank lines between; the crawlers call what has no heading "Introduction"."""
    blocks = []
    for number, section in enumerate(sections):
        paragraphs = [paragraph.strip() for paragraph in section.content if paragraph.strip()]
        if paragraphs and section.heading and not (number == 0 and section.heading == "Introduction"):
            blocks.append(section.heading)
        blocks += paragraphs
    return "\n\n".join(blocks)


def _extra(article: Article) -> dict[str, Any]:
    sections = article.content or []
    times = [article.access_time, *(section.access_time for section in sections)]
    images = [image.model_dump() for section in sections for image in section.images]
    known = {
        "pageid": article.pageid,
        "access_time": next((time for time in times if time), None),
        "images": images or None,
    }
    return {**{name: value for name, value in known.items() if value is not None}, **(article.model_extra or {})}
