"""Answers on their way back: whole or as a stream, given up when the caller goes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import orjson
from starlette.types import Receive, Send

from serving.rag.problems import Problem

Result = TypeVar("Result")

EVENT_END = b"\n\n"
DATA = b"data: "
FIRST_EVENT_BYTES = 65_536

log = logging.getLogger(__name__)


class CallerGone(Exception):
    """The caller closed the connection."""


async def while_connected(receive: Receive, work: Awaitable[Result]) -> Result:
    """Do some work; cancel it when the caller goes away, so that the model does not answer nobody.

    Raises:
        CallerGone: The caller went away.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise CallerGone
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_json(send: Send, status: int, body: Any, headers: dict[str, str]) -> None:
    """Send a whole answer."""
    content = orjson.dumps(body)
    sent = {"content-type": "application/json", "content-length": str(len(content)), **headers}
    await send({"type": "http.response.start", "status": status, "headers": _encoded(sent)})
    await send({"type": "http.response.body", "body": content})


async def send_stream(
    send: Send,
    source: AsyncGenerator[bytes],
    payload: dict[str, Any],
    headers: dict[str, str],
    first_byte: Callable[[], None],
) -> None:
    """Send an answer as it is made. The first event gets the `m4rag` field; all others pass as they are.

    The model's trouble in the middle of an answer becomes an error event: the status is out already.
    """
    sent = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}
    await send({"type": "http.response.start", "status": 200, "headers": _encoded({**sent, **headers})})
    held: bytes | None = b""
    try:
        async for chunk in source:
            out = chunk
            if held is not None:
                held += chunk
                if EVENT_END not in held and len(held) < FIRST_EVENT_BYTES:
                    continue
                out, held = with_account(held, payload), None
                first_byte()
            await send({"type": "http.response.body", "body": out, "more_body": True})
        if held:
            await send({"type": "http.response.body", "body": held, "more_body": True})
    except Problem as problem:
        event = (held or b"") + DATA + orjson.dumps(problem.body) + EVENT_END
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def with_account(held: bytes, payload: dict[str, Any]) -> bytes:
    """The beginning of a stream with the `m4rag` field put into its first event, if that is a JSON object."""
    event, end, rest = held.partition(EVENT_END)
    if not end or not event.startswith(DATA):
        return held
    try:
        first = orjson.loads(event[len(DATA) :])
    except orjson.JSONDecodeError:
        return held
    if not isinstance(first, dict):
        return held
    return DATA + orjson.dumps({**first, "m4rag": payload}) + end + rest


async def released(stack: AsyncExitStack, work: Awaitable[None]) -> None:
    """Do some work and let go of everything it held, however it ends."""
    async with stack:
        await work


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
