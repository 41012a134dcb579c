"""An OpenAI-compatible server that takes no time of its own: every question is answered after a fixed wait.

    python benchmarks/mock_server.py --latency-ms 100

A request with `"stream":true` gets its answer as 16 events, the first after the wait, 5 ms apart.

Prints its base URL on the first line and serves until its input ends. It reads requests only as far as HTTP needs, so
that nearly all CPU of a benchmark is the client's. `GET /stats` tells how many questions were answered, the most that
waited at once, and how many seconds ago the first since the last `GET /stats` came.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Annotated, Any

import typer

SAID = json.dumps({"explanation": "It is what the picture shows. " * 4, "answer": 1})
COMPLETION = {
    "id": "chatcmpl-0",
    "object": "chat.completion",
    "created": 0,
    "model": "mock",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": SAID}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 900, "completion_tokens": 40, "total_tokens": 940},
}
PIECES, PIECE_S = 16, 0.005
EVENT = {**COMPLETION, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "word "}}]}
MODELS = {"object": "list", "data": [{"id": "mock", "object": "model", "owned_by": "mock", "max_model_len": 8192}]}


class Server:
    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.answered = 0
        self.waiting = 0
        self.most_waiting = 0
        self.first: float | None = None

    def arrived(self) -> None:
        self.first = self.first or time.monotonic()
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)

    def left(self) -> None:
        self.waiting -= 1
        self.answered += 1

    def stats(self) -> dict[str, Any]:
        told = {
            "answered": self.answered,
            "most_waiting": self.most_waiting,
            "first_s_ago": None if self.first is None else time.monotonic() - self.first,
        }
        self.first, self.most_waiting = None, self.waiting
        return told


class Connection(asyncio.Protocol):
    """One client's connection: requests follow one another, none is pipelined."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.head = bytearray()
        self.path = ""
        self.missing = 0  # bytes of the body that have not come yet; they are not kept
        self.stream = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        if self.missing:
            self.missing -= len(data)
        else:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            request, *lines = self.head[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if "transfer-encoding" in headers:
                raise SystemExit("this server reads bodies by their Content-Length only")
            if headers.get("expect") == "100-continue":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.path = request.split()[1]
            self.missing = int(headers.get("content-length", 0)) - (len(self.head) - end - 4)
            self.stream = b'"stream":true' in self.head
            self.head.clear()
        if self.missing < 0:
            raise SystemExit("a client sends requests before it has the answer to the last one")
        if self.missing == 0:
            self.answer()

    def answer(self) -> None:
        if self.path.endswith("/chat/completions"):
            self.server.arrived()
            asyncio.get_running_loop().call_later(self.server.latency_s, self.complete)
        elif self.path.endswith("/models"):
            self.send(MODELS)
        elif self.path.endswith("/stats"):
            self.send(self.server.stats())
        else:
            self.send({"error": {"message": f"no such path {self.path}"}}, "404 Not Found")

    def complete(self) -> None:
        if self.stream:
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            self.piece(PIECES)
            return
        self.server.left()
        self.send(COMPLETION)

    def piece(self, left: int) -> None:
        event = b"data: " + (json.dumps(EVENT).encode() if left else b"[DONE]") + b"\n\n"
        self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        if left:
            asyncio.get_running_loop().call_later(PIECE_S, self.piece, left - 1)
            return
        self.transport.write(b"0\r\n\r\n")
        self.server.left()

    def send(self, value: Any, status: str = "200 OK") -> None:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


async def serve(latency_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = Server(latency_s)
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)


def main(latency_ms: Annotated[float, typer.Option(help="Wait before every answer.")] = 100.0) -> None:
    asyncio.run(serve(latency_ms / 1000))


if __name__ == "__main__":
    typer.run(main)
