"""Asks a server as fast as it answers, over so many connections, and tells how long answers took. Costs little CPU."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import uvloop


@dataclass
class Load:
    """What a load gave: seconds to the first byte and to the end of every answer, and how many were not 200."""

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    failed: int = 0
    seconds: float = 0.0


class Caller(asyncio.Protocol):
    """One connection: asks again as soon as it has its answer."""

    def __init__(self, request: bytes, load: Load, until: float, ended: asyncio.Future[None]) -> None:
        self.request, self.load, self.until, self.ended = request, load, until, ended
        self.data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.ask()

    def ask(self) -> None:
        if time.perf_counter() >= self.until:
            self.transport.close()
            return
        self.data.clear()
        self.began = time.perf_counter()
        self.first: float | None = None
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.data += data
        head = self.data.find(b"\r\n\r\n")
        if head < 0:
            return
        if self.first is None and len(self.data) > head + 4:
            self.first = time.perf_counter() - self.began
        headers = bytes(self.data[:head]).lower()
        if b"transfer-encoding: chunked" in headers:
            complete = self.data.endswith(b"\r\n0\r\n\r\n")
        else:
            length = int(headers.partition(b"content-length:")[2].split(b"\r\n")[0])
            complete = len(self.data) >= head + 4 + length
        if not complete:
            return
        self.load.failed += not headers.startswith(b"http/1.1 200")
        self.load.whole.append(time.perf_counter() - self.began)
        self.load.first.append(self.first or self.load.whole[-1])
        self.ask()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def load(url: str, body: bytes, connections: int, seconds: float) -> Load:
    """Put a load on a server.

    Args:
        url: Base URL ending in `/v1`.
        body: Body of every request.
        connections: How many are open, each with one request at a time.
        seconds: How long new requests are sent.
    """
    where = urlsplit(url)
    head = f"POST {where.path}/chat/completions HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    made = Load()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        ended = [loop.create_future() for _ in range(connections)]
        for each in ended:
            caller = Caller(request, made, started + seconds, each)
            await loop.create_connection(lambda caller=caller: caller, where.hostname, where.port)
        await asyncio.gather(*ended)
        made.seconds = time.perf_counter() - started

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    return made
