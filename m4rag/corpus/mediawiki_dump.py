"""MediaWiki's XML dumps (`pages-articles`), plain or bz2, read as a stream.

The format is https://www.mediawiki.org/xml/export-0.11.xsd. A dump has no document type, so one that has is refused:
with it go entities of any kind, internal (which could grow without end) and external (which could read files).
"""

from __future__ import annotations

import bz2
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from xml.parsers import expat  # the parser alone; `_Parser` refuses document types

from m4rag.corpus.left_out import LeftOut
from m4rag.corpus.mediawiki import Page, Wiki, documents, wikipedia_license
from m4rag.corpus.wikitext import LEFT_OUT_NAMESPACES
from m4rag.errors import BadData, UsageError
from m4rag.languages import lookup
from m4rag.schema import Document

NAME = "mediawiki-dump"

BLOCK_BYTES = 1 << 18
MOST_CHARACTERS = 1 << 26
"""Of one field. MediaWiki's own limit of a page is 2 MiB."""

FETCH_AGAIN = "Fetch it again and compare its checksum."

_FILE_NAMESPACES = frozenset({"-2", "6", "14"})
_FIELDS = frozenset({"title", "ns", "id", "timestamp", "model", "text", "dbname", "base", "namespace"})
_PAGE = ("mediawiki", "page")
_REVISION = (*_PAGE, "revision")


def read_dump(path: Path, left_out: LeftOut) -> Iterator[Document]:
    """The articles of a dump (namespace 0) in its order; converted on all cores, in bounded memory.

    Args:
        path: The dump.
        left_out: Counts redirects, pages of other namespaces, pages that are no wikitext, and deleted texts.

    Raises:
        BadData: It is no dump, is cut off, has a document type, holds several revisions of a page, or is of a language
            that m4rag does not know.
    """
    parser = _Parser(path, left_out)
    stream = parser.pages()
    first = next(stream, None)
    if parser.wiki is None:
        raise BadData("no siteinfo before the pages", where=str(path), remedy="Use a pages-articles dump as published.")
    if first is not None:
        yield from documents(parser.wiki, _before(first, stream))


def _before(first: Page, others: Iterator[Page]) -> Iterator[Page]:
    yield first
    yield from others


class _Parser:
    """Pushes blocks of the file through expat and gives out pages as they close."""

    def __init__(self, path: Path, left_out: LeftOut) -> None:
        self.wiki: Wiki | None = None
        self._path = path
        self._left_out = left_out
        self._open: list[str] = []
        self._text: list[str] | None = None
        self._length = 0
        self._site: dict[str, str] = {}
        self._namespaces: set[str] = set()
        self._namespace = ""
        self._page: dict[str, str] = {}
        self._pages: deque[Page] = deque()
        self._expat = expat.ParserCreate()
        self._expat.buffer_text = True
        self._expat.StartDoctypeDeclHandler = self._doctype
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._characters

    def pages(self) -> Iterator[Page]:
        """The articles, as soon as the file is read so far."""
        try:
            with _opened(self._path) as stream:
                while block := stream.read(BLOCK_BYTES):
                    self._expat.Parse(block, False)
                    while self._pages:
                        yield self._pages.popleft()
                self._expat.Parse(b"", True)
        except expat.ExpatError as error:
            raise BadData(
                f"not a whole XML file ({error})",
                where=str(self._path),
                remedy="Fetch it again and compare its checksum.",
            ) from None
        except (EOFError, OSError) as error:
            raise BadData(
                f"cannot be read ({error})", where=str(self._path), remedy="Fetch it again and compare its checksum."
            ) from None

    def _doctype(self, *_: object) -> None:
        raise self._bad("has a document type, which no dump has")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._open.append(name)
        path = tuple(self._open)
        if len(path) == 1:
            if name != "mediawiki":
                raise self._bad(f"not a dump of MediaWiki: its root is {name!r}")
            self._site["language"] = attributes.get("xml:lang", "")
        elif path == _PAGE:
            self._page = {}
        elif path == _REVISION:
            if "revision" in self._page:
                raise self._bad(f"several revisions of {self._page.get('title')!r}", "Use a pages-articles dump.")
            self._page["revision"] = "yes"
        elif path == (*_PAGE, "redirect"):
            self._page["redirect"] = attributes.get("title", "")
        elif path == (*_REVISION, "text") and "deleted" in attributes:
            self._page["deleted"] = "yes"
        elif name == "namespace":
            self._namespace = attributes.get("key", "")
        if name in _FIELDS:
            self._text, self._length = [], 0

    def _characters(self, data: str) -> None:
        if self._text is None:
            return
        self._length += len(data)
        if self._length > MOST_CHARACTERS:
            raise self._bad(f"a field of more than {MOST_CHARACTERS:,} characters")
        self._text.append(data)

    def _end(self, name: str) -> None:
        path = tuple(self._open)
        self._open.pop()
        value, self._text = "".join(self._text or ()), None
        if path[:2] == ("mediawiki", "siteinfo"):
            self._siteinfo(path, name, value)
        elif path[:-1] == _PAGE and name in ("title", "ns", "id"):
            self._page[name] = value
        elif path[:-1] == _REVISION and name in ("id", "timestamp", "model", "text"):
            self._page[f"revision.{name}"] = value
        elif path == _PAGE:
            self._close_page()

    def _siteinfo(self, path: tuple[str, ...], name: str, value: str) -> None:
        if name == "namespace" and self._namespace in _FILE_NAMESPACES:
            self._namespaces.add(value.casefold())
        elif name in ("dbname", "base"):
            self._site[name] = value
        elif len(path) == 2:
            self.wiki = self._wiki()

    def _wiki(self) -> Wiki:
        base = self._site.get("base", "")
        try:
            language = lookup(self._site["language"]).code
        except UsageError as error:
            raise self._bad(error.what, error.remedy) from None
        return Wiki(
            name=self._site.get("dbname") or "mediawiki",
            language=language,
            page_url=base.rpartition("/")[0] + "/",
            license=wikipedia_license(base),
            left_out=LEFT_OUT_NAMESPACES | self._namespaces,
        )

    def _close_page(self) -> None:
        page = self._page
        try:
            kept = Page(
                page_id=int(page["id"]),
                title=page["title"],
                revision_id=int(page["revision.id"]),
                revision_time=page["revision.timestamp"],
                text=page["revision.text"],
            )
            namespace = int(page["ns"])
        except (KeyError, ValueError) as error:
            raise self._bad(f"page {page.get('title')!r} lacks {error}") from None
        if namespace != 0:
            self._left_out.count("pages of other namespaces")
        elif "redirect" in page:
            self._left_out.count("redirects")
        elif page.get("revision.model", "wikitext") != "wikitext":
            self._left_out.count(f"pages of {page['revision.model']}")
        elif "deleted" in page:
            self._left_out.tell("deleted texts", f"the text of {kept.title!r} is deleted", where=str(self._path))
        else:
            self._pages.append(kept)

    def _bad(self, what: str, remedy: str | None = None) -> BadData:
        return BadData(what, where=f"{self._path} line {self._expat.CurrentLineNumber}", remedy=remedy)


def _opened(path: Path) -> IO[bytes]:
    try:
        with path.open("rb") as stream:
            packed = stream.read(3) == b"BZh"
        return bz2.open(path, "rb") if packed else path.open("rb")
    except (FileNotFoundError, IsADirectoryError):
        raise BadData("no such file", where=str(path)) from None
