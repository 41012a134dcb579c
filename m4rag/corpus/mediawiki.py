"""What a dump and the API of a MediaWiki have in common: a wiki, its pages, and the documents they become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import ClassVar
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ConfigDict

from m4rag.corpus import wikitext
from m4rag.processes import in_order
from m4rag.schema import Document, Row

WIKIPEDIA_LICENSE = "CC-BY-SA-4.0"
"""What Wikipedia's text is under since June 2023."""

BATCH_CHARACTERS = 500_000
"""Wikitext that one core is given at a time; with `BATCH_PAGES`, what bounds memory."""

BATCH_PAGES = 500


class Wiki(BaseModel):
    """One MediaWiki.

    Attributes:
        name: Its database's name (`amwiki`): the source of its documents.
        language: Language code known to `m4rag.languages`.
        page_url: Address of a page, up to its title.
        license: SPDX identifier or name of the licence of its text, None if it is not known.
        left_out: Its names, in lower case, of the namespaces whose links are no text.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    language: str
    page_url: str
    license: str | None
    left_out: frozenset[str] = wikitext.LEFT_OUT_NAMESPACES


class Page(Row):
    """One revision of a page.

    Attributes:
        asked: The title or `#page id` that it was asked for by; "" in a dump.
        page_id: Stays when the page is renamed.
        title: Title without namespace aliases or underscores.
        revision_id: The revision that the text is of.
        revision_time: When it was saved, ISO 8601.
        text: Its wikitext.
        fetched: When it was fetched, ISO 8601; "" in a dump.
        trouble: Why there is no text, "" if there is.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"fetched"})

    asked: str = ""
    page_id: int = 0
    title: str = ""
    revision_id: int = 0
    revision_time: str = ""
    text: str = ""
    fetched: str = ""
    trouble: str = ""


def documents(wiki: Wiki, pages: Iterable[Page]) -> Iterator[Document]:
    """Pages as documents in their order, converted on all cores, a bounded part of them in memory."""
    for batch in in_order(partial(_convert, wiki), _batches(pages)):
        yield from batch


def wikipedia_license(url: str | None) -> str | None:
    """Licence of the text at an address, None unless it is one of Wikipedia's."""
    host = urlsplit(url or "").hostname or ""
    return WIKIPEDIA_LICENSE if host.endswith(".wikipedia.org") else None


def _batches(pages: Iterable[Page]) -> Iterator[list[Page]]:
    iterator = iter(pages)
    while batch := list(islice(iterator, 1)):
        total = len(batch[0].text)
        while total < BATCH_CHARACTERS and len(batch) < BATCH_PAGES:
            page = next(iterator, None)
            if page is None:
                break
            batch.append(page)
            total += len(page.text)
        yield batch


def _convert(wiki: Wiki, pages: list[Page]) -> list[Document]:
    return [_document(wiki, page) for page in pages]


def _document(wiki: Wiki, page: Page) -> Document:
    return Document(
        document_id=f"{wiki.name}:{page.page_id}",
        title=page.title,
        text=wikitext.plain_text(page.text, wiki.left_out),
        language=wiki.language,
        source=wiki.name,
        url=wiki.page_url + quote(page.title.replace(" ", "_"), safe="/:"),
        license=wiki.license,
        extra={"revision_id": page.revision_id, "revision_time": page.revision_time},
    )
