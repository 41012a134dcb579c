"""The window against a real server that sheds what it has no room for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from m4rag.errors import Unavailable
from m4rag.vlm import client as client_module
from m4rag.vlm.client import VlmClient
from m4rag.vlm.congestion import CongestionWindow, Shed

GOOD = {"choices": [{"message": {"content": "{}"}, "finish_reason": "stop"}]}
MODELS = {"data": [{"id": "m"}]}
ROOM = 5
MOST = 40


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "BACKOFF_S", 0.01)


class Gateway:
    """Works on `room` requests at once and sheds the others at once, as a gateway with a full queue does."""

    def __init__(self, room: int, status: int = 429) -> None:
        self.room = room
        self.status = status
        self.working = self.served = self.shed = 0
        self.sizes: list[int] = []
        self.client: VlmClient | None = None

    async def completions(self, request: web.Request) -> web.Response:
        await request.read()
        assert self.client is not None
        self.sizes.append(self.client._window.size)
        if self.working >= self.room:
            self.shed += 1
            return web.Response(status=self.status, text="no room")
        self.working += 1
        await asyncio.sleep(0.01)
        self.working -= 1
        self.served += 1
        return web.json_response(GOOD)

    def run(self, ask: Callable[[VlmClient], Awaitable[None]], **options: float) -> None:
        async def models(request: web.Request) -> web.Response:
            return web.json_response(MODELS)

        async def main() -> None:
            app = web.Application()
            app.router.add_get("/v1/models", models)
            app.router.add_post("/v1/chat/completions", self.completions)
            runner = web.AppRunner(app, handler_cancellation=True)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
            try:
                async with VlmClient(url, concurrency=MOST, **options) as self.client:  # type: ignore[arg-type]
                    await ask(self.client)
            finally:
                await runner.cleanup()

        asyncio.run(main())


async def ask_many(client: VlmClient, number: int = 400) -> None:
    await asyncio.gather(*(client.generate("Which?", max_tokens=8) for _ in range(number)))


@pytest.mark.parametrize("status", [429, 503])
def test_a_gateway_that_sheds_load_gets_as_much_as_it_takes_and_every_question_is_answered(status: int) -> None:
    gateway = Gateway(ROOM, status)
    gateway.run(ask_many)
    assert gateway.served == 400
    assert gateway.sizes[0] == MOST
    settled = gateway.sizes[len(gateway.sizes) // 2 :]
    assert all(size <= 2 * ROOM for size in settled), "the window stays far above what the server takes"
    assert sum(settled) / len(settled) > ROOM / 2, "the window stays far below it"
    assert gateway.shed < gateway.served / 2


def test_the_window_grows_again_when_there_is_more_room() -> None:
    gateway = Gateway(2)

    async def ask(client: VlmClient) -> None:
        await ask_many(client, 100)
        assert client._window.size <= 4
        gateway.room = 1000
        await ask_many(client, 1500)

    gateway.run(ask)
    assert gateway.sizes[-1] > 20
    assert max(gateway.sizes) <= MOST


def test_a_server_without_room_for_anybody_is_given_up() -> None:
    with pytest.raises(Unavailable, match=r"no answer after 5 attempts \(HTTP 429: no room\)"):
        Gateway(0).run(ask_many)


def test_what_timed_out_in_a_queue_is_asked_again_with_fewer_in_flight() -> None:
    """A server that answers one after another: the last of forty waits longer than the client does."""
    turn = asyncio.Lock()

    class Slow(Gateway):
        async def completions(self, request: web.Request) -> web.Response:
            await request.read()
            async with turn:
                await asyncio.sleep(0.03)
            self.served += 1
            return web.json_response(GOOD)

    slow = Slow(1)

    async def ask(client: VlmClient) -> None:
        await ask_many(client, MOST)
        assert client._window.size < MOST

    slow.run(ask, timeout_s=0.6)
    assert slow.served >= MOST


def test_one_shrink_for_all_that_was_sent_under_one_window_and_one_more_for_each_window_answered() -> None:
    async def shed(window: CongestionWindow) -> None:
        with pytest.raises(Shed):
            async with window.slot():
                await asyncio.sleep(0)
                raise Shed

    async def answered(window: CongestionWindow) -> None:
        async with window.slot():
            await asyncio.sleep(0)

    async def main() -> None:
        window = CongestionWindow(16)
        await asyncio.gather(*(shed(window) for _ in range(16)))
        assert window.size == 12
        await asyncio.gather(*(answered(window) for _ in range(12)))
        assert window.size == 12, "nobody waited, but it grew"
        await asyncio.gather(*(answered(window) for _ in range(12 + 13)))
        assert window.size == 13
        await asyncio.gather(*(answered(window) for _ in range(100)))
        assert window.size == 16, "above its most, or not grown back"
        for _ in range(40):
            await shed(window)
        assert window.size == 1

    asyncio.run(main())
