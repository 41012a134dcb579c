"""A MediaWiki's API on this machine: pages by title and id, continuation, redirects, and every way of saying no."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

Reply = Callable[[], web.Response]

LOGO = {"id": 6, "name": "ፋይል", "canonical": "File"}


@dataclass
class MediaWiki:
    """What the server knows, and what it was asked.

    Attributes:
        pages: Title to wikitext.
        redirects: Title to title.
        replies: Answers to give first, one a request, whatever is asked.
        answer_pages: Pages with text in one answer; the rest comes with `continue`.
        requests: Form fields of each request, with `User-Agent`.
    """

    pages: dict[str, str]
    redirects: dict[str, str] = field(default_factory=dict)
    replies: deque[Reply] = field(default_factory=deque)
    answer_pages: int = 50
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def asked(self) -> list[str]:
        """Every title and id asked for so far."""
        named = [request.get("titles") or request.get("pageids") or "" for request in self.requests]
        return [each for names in named for each in names.split("|") if each]

    async def answer(self, request: web.Request) -> web.Response:
        fields = {name: str(value) for name, value in (await request.post()).items()}
        self.requests.append({**fields, "User-Agent": request.headers["User-Agent"]})
        if self.replies:
            return self.replies.popleft()()
        if fields.get("meta") == "siteinfo":
            return web.json_response(self._site())
        return web.json_response(self._pages(fields))

    def _site(self) -> dict[str, object]:
        general = {"wikiid": "amwiki", "lang": "am", "server": "//am.wikipedia.org", "articlepath": "/wiki/$1"}
        rights = {"url": "https://creativecommons.org/licenses/by-sa/4.0/deed.am", "text": "CC BY-SA 4.0"}
        query = {"general": general, "namespaces": {"6": LOGO}, "namespacealiases": [], "rightsinfo": rights}
        return {"batchcomplete": True, "query": query}

    def _pages(self, fields: dict[str, str]) -> dict[str, object]:
        found, redirects = [], []
        if "pageids" in fields:
            found = [self._by_id(int(number)) for number in fields["pageids"].split("|")]
        else:
            for title in fields["titles"].split("|"):
                target = self.redirects.get(title, title)
                if target != title:
                    redirects.append({"from": title, "to": target})
                found.append(self._page(target))
        start = int(fields.get("rvcontinue", "0"))
        for number, page in enumerate(found):
            if not start <= number < start + self.answer_pages:
                page.pop("revisions", None)
        query = {"pages": found, "redirects": redirects}
        if start + self.answer_pages >= len(found):
            return {"batchcomplete": True, "query": query}
        return {"continue": {"rvcontinue": str(start + self.answer_pages), "continue": "||info"}, "query": query}

    def _by_id(self, number: int) -> dict[str, object]:
        titles = list(self.pages)
        return self._page(titles[number - 1]) if number <= len(titles) else {"pageid": number, "missing": True}

    def _page(self, title: str) -> dict[str, object]:
        if title not in self.pages:
            return {"ns": 0, "title": title, "missing": True}
        number = list(self.pages).index(title) + 1
        main = {"contentmodel": "wikitext", "contentformat": "text/x-wiki", "content": self.pages[title]}
        revision = {
            "revid": 1000 + number,
            "timestamp": f"2025-04-{number % 28 + 1:02d}T00:00:00Z",
            "slots": {"main": main},
        }
        return {"pageid": number, "ns": 0, "title": title, "revisions": [revision]}


def error(code: str, info: str = "", **headers: str) -> Reply:
    """MediaWiki's way: HTTP 200 with an error inside."""
    return lambda: web.json_response({"error": {"code": code, "info": info}}, headers=headers)


def status(number: int, **headers: str) -> Reply:
    """A bare HTTP status."""
    return lambda: web.Response(status=number, headers=headers)


@contextmanager
def mediawiki(wiki: MediaWiki) -> Iterator[MediaWiki]:
    """Serve a wiki; `wiki.url` is its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/w/api.php", wiki.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
    wiki.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield wiki
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
