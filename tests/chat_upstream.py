"""A model's server for the endpoint's tests: remembers what it is asked, answers or fails as it is told."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from m4rag.vlm.prompts import render_caption

CAPTION = render_caption()
NAME = "m"


def said_to(body: dict[str, Any]) -> str:
    """The text of the last message of a request."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else str(content[-1]["text"])


@dataclass
class Upstream:
    """What a test sets and reads.

    Attributes:
        url: Base URL.
        bodies: Requests so far, captions left out.
        left: Requests whose caller went away before the end.
        fails: Status and message that a request gets instead of an answer, None for an answer.
        pause_s: Seconds before an answer, and between two pieces of a stream.
        breaks_after: Pieces of a stream after which the connection is cut, None for none.
    """

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0
    fails: Callable[[dict[str, Any]], tuple[int, str] | None] = lambda body: None
    pause_s: float = 0.0
    breaks_after: int | None = None

    def reset(self) -> None:
        """As at the start."""
        self.bodies.clear()
        self.left, self.fails, self.pause_s, self.breaks_after = 0, lambda body: None, 0.0, None


def _choice(body: dict[str, Any]) -> dict[str, Any]:
    if "tools" in body:
        call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        message: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [call]}
        return {"index": 0, "message": message, "finish_reason": "tool_calls"}
    text = '{"dish": "soup"}' if "response_format" in body else "it is soup"
    return {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}


@contextmanager
def upstream() -> Iterator[Upstream]:
    """A server on loopback in a thread of its own."""
    state = Upstream()
    base = {"id": "x", "created": 1, "model": NAME}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": NAME, "object": "model"}]})

    async def health(request: web.Request) -> web.Response:
        return web.Response()

    async def completions(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if said_to(body) == CAPTION:
            return web.json_response({"choices": [{"message": {"content": "a bowl of soup"}}], "usage": usage})
        state.bodies.append(body)
        if problem := state.fails(body):
            return web.json_response({"error": {"message": problem[1]}}, status=problem[0])
        try:
            if body.get("stream"):
                return await streamed(request, body)
            await asyncio.sleep(state.pause_s)
        except (asyncio.CancelledError, ConnectionError):
            state.left += 1
            raise
        return web.json_response({**base, "object": "chat.completion", "choices": [_choice(body)], "usage": usage})

    async def streamed(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        chunk = {**base, "object": "chat.completion.chunk"}
        for place, word in enumerate(["it ", "is ", "soup"] * (100 if state.pause_s else 1)):
            if place == state.breaks_after:
                assert request.transport is not None
                request.transport.abort()
                return response
            choices = [{"index": 0, "delta": {"content": word}, "finish_reason": None}]
            await response.write(b"data: " + json.dumps({**chunk, "choices": choices}).encode() + b"\n\n")
            await asyncio.sleep(state.pause_s)
        if (body.get("stream_options") or {}).get("include_usage"):
            await response.write(b"data: " + json.dumps({**chunk, "choices": [], "usage": usage}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", models)
        app.router.add_get("/health", health)
        app.router.add_post("/v1/chat/completions", completions)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
    state.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield state
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
