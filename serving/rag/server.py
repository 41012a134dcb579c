"""The process: uvicorn around the application, until SIGTERM and the last running request."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable

import uvicorn
import uvloop

from m4rag.errors import Unavailable
from m4rag.settings import Settings
from serving.rag.app import Endpoint, application
from serving.rag.configuration import Configuration
from serving.rag.problems import Problem

KEEPALIVE_S = 75
"""Longer than a load balancer keeps an idle connection, so that it never sends on one that is being closed."""

BACKLOG = 2048


def serve_until_stopped(
    configuration: Configuration, settings: Settings, host: str, port: int, started: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests end first.

    Args:
        configuration: The endpoint's.
        settings: Where Milvus and the encoder are.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        started: Called with the base URL once requests are taken.

    Raises:
        BadData: The policy file is missing or was changed.
        UsageError: The policy is of another model or index.
        Unavailable: The model, Milvus or the encoder does not answer, or the port is taken.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for ours in ("m4rag", "serving"):
        logging.getLogger(ours).setLevel(logging.INFO)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(configuration, settings, host, port, started))


async def _serve(
    configuration: Configuration, settings: Settings, host: str, port: int, started: Callable[[str], None]
) -> None:
    endpoint = Endpoint(configuration, settings)
    try:
        async with endpoint.running():
            with _listening(host, port) as listening:
                bound, bound_port = listening.getsockname()[:2]
                # uvicorn ends gracefully on SIGTERM and then raises it again, which would end us before we clean up.
                signal.signal(signal.SIGTERM, lambda *_: None)
                started(f"http://{bound}:{bound_port}/v1")
                await _server(endpoint, configuration.drain_s).serve(sockets=[listening])
    except Problem as problem:
        raise Unavailable(problem.message, where=configuration.vlm_url, remedy="Start the model's server.") from None


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        raise Unavailable(str(error.strerror), where=f"{host}:{port}", remedy="Use another --port.") from None


def _server(endpoint: Endpoint, drain_s: int) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            application(endpoint),
            http="httptools",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            timeout_keep_alive=KEEPALIVE_S,
            timeout_graceful_shutdown=drain_s,
        )
    )
