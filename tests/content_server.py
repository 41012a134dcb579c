"""Servers that speak vLLM's protocol: one says what a test makes it say, one chooses by what the options say."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

NUMBERED = re.compile(r"^\d\. (.*)$", re.MULTILINE)


def preferred(options: list[str]) -> int:
    """Position of the option with the smallest hash."""
    return min(range(len(options)), key=lambda place: hashlib.sha256(options[place].encode()).digest())


@contextmanager
def content_server(refuses: Callable[[str], bool] = lambda prompt: False) -> Iterator[tuple[str, list[str]]]:
    """Base URL of the server, and the prompts it was given so far; it will not take those that it `refuses`."""
    prompts: list[str] = []

    def say(body: dict[str, Any]) -> str | None:
        content = body["messages"][0]["content"]
        prompt = content if isinstance(content, str) else content[-1]["text"]
        prompts.append(prompt)
        if refuses(prompt):
            return None
        return json.dumps({"explanation": "", "answer": preferred(NUMBERED.findall(prompt)) + 1})

    with model_server(say) as url:
        yield url, prompts


@contextmanager
def model_server(say: Callable[[dict[str, Any]], str | None], *names: str) -> Iterator[str]:
    """Base URL of a server that replies to a request's body what `say` makes of it; None refuses the request.

    It lists models of these names, `m` without any.
    """

    async def models(request: web.Request) -> web.Response:
        listed = [{"id": name, "root": name, "max_model_len": 4096, "owned_by": "test"} for name in names or ("m",)]
        return web.json_response({"data": listed})

    async def completions(request: web.Request) -> web.Response:
        said = say(await request.json())
        if said is None:
            return web.json_response({"error": {"message": "I refuse this one"}}, status=400)
        return web.json_response(
            {
                "choices": [{"message": {"content": said}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1},
            }
        )

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", models)
        app.router.add_post("/v1/chat/completions", completions)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
