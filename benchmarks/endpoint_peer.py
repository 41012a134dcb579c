"""The least that a proxy in front of a model can be: Starlette, one aiohttp session, no checks.

    python benchmarks/endpoint_peer.py UPSTREAM_URL

Prints its base URL on the first line and serves until it is terminated.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator

import aiohttp
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

HEADERS = {"content-type": "application/json"}


async def main(upstream: str) -> None:
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None))

    async def chat(request: Request) -> Response:
        body = await request.body()
        reply = await session.post(f"{upstream}/chat/completions", data=body, headers=HEADERS)
        if reply.content_type != "text/event-stream":
            async with reply:
                return Response(await reply.read(), reply.status, media_type="application/json")

        async def pieces() -> AsyncIterator[bytes]:
            async with reply:
                async for piece in reply.content.iter_any():
                    yield piece

        return StreamingResponse(pieces(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", flush=True)
    server = uvicorn.Server(
        uvicorn.Config(app, http="httptools", lifespan="off", access_log=False, log_level="warning")
    )
    await server.serve(sockets=[listening])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1]))
