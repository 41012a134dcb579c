"""Pages of one MediaWiki by title or page id, over its API, kept on the disk as they come.

Wikitext is fetched, not extracts: fifty pages a request instead of one, exactly the revision that is recorded, and the
same text as from a dump. Requests go out one after the other, at most one a second, with `maxlag`, as Wikimedia asks
(https://www.mediawiki.org/wiki/API:Etiquette). Only the site that the user named is asked: a redirect is refused, and
nothing that an answer says leads anywhere else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize
from urllib.parse import urlsplit

from pydantic import ValidationError

from m4rag import __version__
from m4rag.corpus.left_out import LeftOut
from m4rag.corpus.mediawiki import Page, Wiki, documents
from m4rag.corpus.wikitext import LEFT_OUT_NAMESPACES
from m4rag.durable import RowLog
from m4rag.errors import BadData, Unavailable, UsageError
from m4rag.languages import lookup
from m4rag.manifests import write_atomic
from m4rag.progress import Progress, silent
from m4rag.schema import Document

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

NAME = "mediawiki-api"

USER_AGENT = f"m4rag/{__version__} (https://github.com/m4rag/m4rag; corpus ingest)"
PAGES_A_REQUEST = 50
PAUSE_S = 1.0
"""From one request to the next."""
MAXLAG_S = 5
ATTEMPTS = 6
BACKOFF_S = 2.0
MOST_WAIT_S = 300.0
TIMEOUT_S = 60.0
CONNECT_S = 10.0
MOST_BYTES = 1 << 26
"""Of one answer; Wikimedia's own limit is 8 MiB."""
MOST_CONTINUED = 1000

BUSY_STATUS = frozenset({429, 500, 502, 503, 504})
BUSY_CODES = frozenset({"maxlag", "ratelimited", "readonly"})

_PAGE_ID = re.compile(r"#\d{1,18}")
_NO_TITLE = re.compile(r"[#<>\[\]{}|\x00-\x1f\x7f]")
_CREATIVE_COMMONS = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)")


@dataclass(frozen=True)
class Fetched:
    """What is on the disk once everything that was asked for is there.

    Attributes:
        wiki: The site.
        log: Its pages, one row for each title asked.
        asked: The titles and page ids, in the order of the file.
    """

    wiki: Wiki
    log: RowLog[Page]
    asked: tuple[str, ...]

    def pages(self) -> Iterator[Page]:
        """The rows that were asked for, in the order in which they came."""
        asked = set(self.asked)
        return (page for _, page in self.log.logged() if page.asked in asked)


def read_titles(path: Path) -> tuple[str, ...]:
    """The titles and page ids (`#123`) of a file, one a line; empty lines are nothing.

    Raises:
        BadData: A line can be neither, or comes twice; names the first.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (FileNotFoundError, IsADirectoryError):
        raise BadData("no such file", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise BadData(f"not UTF-8 ({error.reason})", where=str(path)) from None
    places: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        asked = normalize("NFC", " ".join(line.replace("_", " ").split()))
        where = f"{path} line {number}"
        if not asked:
            continue
        if not _PAGE_ID.fullmatch(asked) and (_NO_TITLE.search(asked) or len(asked.encode()) > 255):
            raise BadData(f"{asked[:80]!r} can't be a title", where=where, remedy="Use a title, or #123 for a page id.")
        if asked in places:
            raise BadData(f"{asked!r} is in line {places[asked]} already", where=where, remedy="Remove one.")
        places[asked] = number
    if not places:
        raise BadData("no title", where=str(path))
    return tuple(places)


def api_url(site: str) -> str:
    """Address of a site's API.

    Args:
        site: The language code of a Wikipedia (`am`), a site (`https://am.wikipedia.org`), or its API's address.

    Raises:
        UsageError: It is none of these, or is not https (http is for this machine alone).
    """
    if re.fullmatch(r"[\w-]+", site):
        return f"https://{lookup(site).language.wiki}.wikipedia.org/w/api.php"
    parts = urlsplit(site)
    if not parts.hostname or parts.username or parts.query or parts.fragment:
        raise UsageError("not a site", where=site, remedy="Use https://HOST, or a Wikipedia's language code.")
    if parts.scheme != "https" and not (parts.scheme == "http" and _loopback(parts.hostname)):
        raise UsageError("only https is asked", where=site, remedy=f"Use https://{parts.hostname}.")
    path = parts.path if parts.path.endswith("/api.php") else "/w/api.php"
    return f"{parts.scheme}://{parts.netloc}{path}"


def fetch(titles: Path, site: str, folder: Path, *, progress: Progress = silent, pause_s: float = PAUSE_S) -> Fetched:
    """Fetch what is not in the folder yet; killed at any time, the same call asks for the rest only.

    Args:
        titles: A file that `read_titles` reads.
        site: What `api_url` takes.
        folder: Keeps the site's facts and its pages, by host.
        progress: Shows how many pages came.
        pause_s: Least seconds from one request to the next.

    Raises:
        UsageError: No such site.
        BadData: The titles can't be read, or the site's language is not known.
        Unavailable: The site does not answer, redirects, asks to wait for too long, or is no MediaWiki.
    """
    asked = read_titles(titles)
    url = api_url(site)
    host = re.sub(r"[^\w.-]", "_", urlsplit(url).netloc)
    log = RowLog(folder / f"{host}.jsonl", Page)
    there = {page.asked for _, page in log.logged()}
    missing = [each for each in asked if each not in there]
    facts = folder / f"{host}.json"
    if missing or not facts.exists():
        with progress("pages", len(asked), len(asked) - len(missing)) as advance:
            asyncio.run(_fetch(_Api(url, pause_s), facts, log, missing, advance))
    return Fetched(Wiki.model_validate_json(facts.read_bytes()), log, asked)


def read_fetched(fetched: Fetched, left_out: LeftOut) -> Iterator[Document]:
    """The fetched pages as documents.

    Args:
        fetched: What `fetch` returned.
        left_out: Is told of titles without a page, and of titles that lead to a page that is there already.
    """

    def pages() -> Iterator[Page]:
        seen: dict[int, str] = {}
        for page in fetched.pages():
            if page.trouble:
                left_out.tell("titles without a page", page.trouble, where=page.asked)
            elif page.page_id in seen:
                what = f"the same page as {seen[page.page_id]!r}"
                left_out.tell("titles of the same page", what, where=page.asked)
            else:
                seen[page.page_id] = page.asked
                yield page

    return documents(fetched.wiki, pages())


async def _fetch(
    api: _Api, facts: Path, log: RowLog[Page], missing: Sequence[str], advance: Callable[[int], None]
) -> None:
    async with api.session() as session:
        if not facts.exists():
            wiki = _wiki(await api.ask(session, {"meta": "siteinfo", "siprop": SITE_FACTS}), api.url)
            write_atomic(facts, wiki.model_dump_json().encode())
        with log:
            for batch in _requests(missing):
                pages = await _pages(api, session, batch)
                await asyncio.to_thread(log.append, pages)
                advance(len(pages))


def _requests(asked: Sequence[str]) -> Iterator[list[str]]:
    """Titles and page ids apart, as many as one request may name."""
    for kind in (False, True):
        names = (each for each in asked if bool(_PAGE_ID.fullmatch(each)) is kind)
        while batch := list(islice(names, PAGES_A_REQUEST)):
            yield batch


SITE_FACTS = "general|namespaces|namespacealiases|rightsinfo"
PAGE_FACTS = {"prop": "revisions|info", "rvprop": "ids|timestamp|content|contentmodel", "rvslots": "main"}


async def _pages(api: _Api, session: ClientSession, asked: Sequence[str]) -> list[Page]:
    """What became of each title, in their order."""
    by_id = asked[0].startswith("#")
    names = "|".join(each.removeprefix("#") for each in asked)
    query = {**PAGE_FACTS, **({"pageids": names} if by_id else {"titles": names, "redirects": "1"})}
    found = _Found()
    more: Mapping[str, str] = {}
    for _ in range(MOST_CONTINUED):
        answer = await api.ask(session, {**query, **more})
        found.add(answer)
        more = answer.get("continue") or {}
        if not more:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            return [found.page(each, now, api.url) for each in asked]
    raise Unavailable("the answer is continued without end", where=api.url)


class _Found:
    """The answer to one request, put together from its continuations."""

    def __init__(self) -> None:
        self._pages: dict[str, dict[str, Any]] = {}
        self._other_names: dict[str, str] = {}
        self._elsewhere: dict[str, str] = {}

    def add(self, answer: Mapping[str, Any]) -> None:
        """Take in one answer; a page may come in several, its text in one of them."""
        query = answer.get("query", {})
        for page in query.get("pages", []):
            for key in (str(page.get("title", "")), f"#{page.get('pageid', '')}"):
                self._pages.setdefault(key, {}).update(page)
        for each in (*query.get("normalized", []), *query.get("redirects", [])):
            self._other_names[each["from"]] = each["to"]
        for each in query.get("interwiki", []):
            self._elsewhere[each["title"]] = each["iw"]

    def page(self, asked: str, now: str, where: str) -> Page:
        """What became of one title."""
        name = asked
        for _ in self._other_names:
            name = self._other_names.get(name, name)
        if name in self._elsewhere:
            return Page(asked=asked, fetched=now, trouble=f"is on another wiki ({self._elsewhere[name]})")
        page = self._pages.get(name)
        if page is None:
            raise Unavailable(f"the answer says nothing of {asked!r}", where=where)
        if trouble := _trouble(page):
            return Page(asked=asked, title=name, fetched=now, trouble=trouble)
        try:
            revision = page["revisions"][0]
            return Page(
                asked=asked,
                page_id=page["pageid"],
                title=page["title"],
                revision_id=revision["revid"],
                revision_time=revision["timestamp"],
                text=revision["slots"]["main"]["content"],
                fetched=now,
            )
        except (KeyError, IndexError, TypeError, ValidationError) as error:
            raise Unavailable(f"the answer for {asked!r} is not whole ({error!r})", where=where) from None


def _trouble(page: Mapping[str, Any]) -> str:
    """Why a page has no text of its own."""
    if page.get("invalid"):
        return f"can't be a title there ({page.get('invalidreason', 'no reason given')})"
    if page.get("special") or page.get("missing"):
        return "no such page"
    if page.get("redirect"):
        return "is a redirect: ask for it by title"
    slot = (page.get("revisions") or [{}])[0].get("slots", {}).get("main", {})
    if slot.get("texthidden"):
        return "its text is hidden"
    if slot and slot.get("contentmodel") != "wikitext":
        return f"is {slot.get('contentmodel')}, not wikitext"
    return ""


def _wiki(answer: Mapping[str, Any], url: str) -> Wiki:
    try:
        query = answer["query"]
        general = query["general"]
        names = {
            name.casefold()
            for namespace in query["namespaces"].values()
            if namespace["id"] in (-2, 6, 14)
            for name in (namespace["name"], namespace.get("canonical", ""))
        }
        aliases = {each["alias"].casefold() for each in query["namespacealiases"] if each["id"] in (-2, 6, 14)}
        server = str(general["server"])
        return Wiki(
            name=general["wikiid"],
            language=lookup(general["lang"]).code,
            page_url=("https:" + server if server.startswith("//") else server)
            + str(general["articlepath"]).replace("$1", ""),
            license=_license(query.get("rightsinfo", {})),
            left_out=LEFT_OUT_NAMESPACES | names | aliases,
        )
    except UsageError as error:
        raise BadData(error.what, where=url, remedy=error.remedy) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise Unavailable(f"not the API of a MediaWiki (no {error})", where=url) from None


def _license(rights: Mapping[str, str]) -> str | None:
    """SPDX identifier of a Creative Commons licence, else the name that the site gives it."""
    found = _CREATIVE_COMMONS.search(rights.get("url", ""))
    if found is None:
        return rights.get("text") or None
    return f"CC0-{found[3]}" if found[2] == "zero" else f"CC-{found[2].upper()}-{found[3]}"


class _Busy(Exception):
    """The site asks for patience; `wait_s` says for how long, None if it does not."""

    def __init__(self, what: str, wait_s: float | None) -> None:
        super().__init__(what)
        self.what = what
        self.wait_s = wait_s


class _Api:
    """One site's API, asked politely."""

    def __init__(self, url: str, pause_s: float) -> None:
        self.url = url
        self._pause_s = pause_s
        self._next = 0.0

    def session(self) -> ClientSession:
        import aiohttp

        return aiohttp.ClientSession(
            headers={"User-Agent": USER_AGENT},
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=CONNECT_S),
        )

    async def ask(self, session: ClientSession, query: Mapping[str, str]) -> dict[str, Any]:
        """Ask until there is an answer, or it has been tried often enough."""
        import aiohttp

        body = {"action": "query", "format": "json", "formatversion": "2", "maxlag": str(MAXLAG_S), **query}
        trouble = ""
        for attempt in range(ATTEMPTS):
            await asyncio.sleep(max(0.0, self._next - time.monotonic()))
            self._next = time.monotonic() + self._pause_s
            wait_s = None
            try:
                return await self._send(session, body)
            except _Busy as busy:
                trouble, wait_s = busy.what, busy.wait_s
            except TimeoutError:
                trouble = f"no answer within {TIMEOUT_S:g} s"
            except aiohttp.ClientError as error:
                trouble = f"no answer ({type(error).__name__})"
            if wait_s is not None and wait_s > MOST_WAIT_S:
                raise self._gone(f"asks to wait for {wait_s:.0f} s ({trouble})")
            if wait_s is None:
                wait_s = BACKOFF_S * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, no secret
            if attempt < ATTEMPTS - 1:
                await asyncio.sleep(wait_s)
        raise self._gone(f"{trouble}, {ATTEMPTS} times")

    async def _send(self, session: ClientSession, body: Mapping[str, str]) -> dict[str, Any]:
        async with session.post(self.url, data=body, allow_redirects=False) as response:
            if 300 <= response.status < 400:
                target = urlsplit(response.headers.get("Location", "")).netloc or "itself"
                raise Unavailable(f"redirects to {target}", where=self.url, remedy="Name that site if you trust it.")
            if response.status in BUSY_STATUS:
                raise _Busy(f"HTTP {response.status}", _retry_after(response))
            if response.status != 200:
                raise Unavailable(f"HTTP {response.status}", where=self.url, remedy="Check the site's address.")
            data = await self._read(response)
            error = data.get("error")
            if error is None:
                return data
            if error.get("code") in BUSY_CODES or str(error.get("code")).startswith("internal_api_error"):
                raise _Busy(f"{error.get('code')}: {error.get('info', '')}"[:200], _retry_after(response))
            raise Unavailable(f"refuses: {error.get('code')}: {error.get('info', '')}"[:300], where=self.url)

    async def _read(self, response: ClientResponse) -> dict[str, Any]:
        received = bytearray()
        async for block in response.content.iter_chunked(1 << 16):
            received += block
            if len(received) > MOST_BYTES:
                raise Unavailable(f"an answer of more than {MOST_BYTES:,} bytes", where=self.url)
        try:
            data = json.loads(received)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise Unavailable("not the API of a MediaWiki: its answer is no JSON object", where=self.url)
        return data

    def _gone(self, what: str) -> Unavailable:
        return Unavailable(what, where=self.url, remedy="Repeat the command later: it continues where it stopped.")


def _retry_after(response: ClientResponse) -> float | None:
    """Seconds that the site asks to wait, None if it does not say."""
    said = response.headers.get("Retry-After", "")
    if said.isdigit():
        return float(said)
    with suppress(ValueError):
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    return None


def _loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
