"""The model behind the endpoint: one pool of connections to its OpenAI-compatible server, bytes passed as they come."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from m4rag.vlm.client import error_message
from serving.rag.configuration import Configuration
from serving.rag.problems import Problem

KEEPALIVE_S = 4.0
"""vLLM closes idle connections after 5 s; a request must not meet a connection that is just being closed."""

HEALTH_S = 2.0
"""How long the model's health is remembered, seconds."""

RETRY_AFTER_S = 2
PASSED_ON = frozenset({400, 404, 413, 422})
"""What the model's server says of a request itself: the caller gets it as it is."""

HEADERS = {"Content-Type": "application/json"}


class Model:
    """A client of the model's server; use it in `async with`.

    Args:
        configuration: Where it is and how long to wait for it.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.url = configuration.model_api
        self._headers = configuration.model_headers
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=configuration.connect_timeout_s, sock_read=configuration.read_timeout_s
        )
        self._healthy_at = -HEALTH_S
        self._name: str | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=connector,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def name(self) -> str:
        """Name of the served model, asked once.

        Raises:
            Problem: The server does not answer.
        """
        if self._name is None:
            listed = await self.get("/models")
            try:
                self._name = str(listed["data"][0]["id"])
            except (KeyError, IndexError, TypeError):
                raise _gone("it lists no model") from None
        return self._name

    async def get(self, path: str) -> Any:
        """The JSON behind a path of its API.

        Raises:
            Problem: The server does not answer.
        """
        try:
            async with self._session.get(f"{self.url}{path}") as response:
                body = await response.read()
                if response.status != 200:
                    raise _problem(response.status, body)
                return orjson.loads(body)
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
            raise _gone(type(error).__name__) from error

    async def healthy(self) -> bool:
        """Whether the server is well; asked at most every two seconds."""
        if time.monotonic() - self._healthy_at < HEALTH_S:
            return True
        try:
            async with self._session.get(f"{self.url.removesuffix('/v1')}/health") as response:
                await response.read()
                well = response.status in (200, 404)  # not every OpenAI-compatible server has /health
        except (aiohttp.ClientError, TimeoutError):
            return False
        if well:
            self._healthy_at = time.monotonic()
        return well

    async def answer(self, path: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Ask and wait for the whole answer.

        Args:
            path: Path of its API, e.g. `/chat/completions`.
            fields: The request.

        Raises:
            Problem: It refuses the request, or does not answer.
        """
        try:
            async with self._session.post(f"{self.url}{path}", data=orjson.dumps(fields), headers=HEADERS) as response:
                body = await response.read()
                if response.status != 200:
                    raise _problem(response.status, body)
        except TimeoutError as error:
            raise _slow() from error
        except aiohttp.ClientError as error:
            raise _gone(type(error).__name__) from error
        try:
            made = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise Problem(
                502, "The model's server answered with something else than JSON.", code="bad_upstream"
            ) from None
        if not isinstance(made, dict):
            raise Problem(502, "The model's server answered with something else than an object.", code="bad_upstream")
        return made

    async def stream(self, path: str, fields: dict[str, Any]) -> AsyncGenerator[bytes]:
        """Ask and hand on the bytes of the answer as they come. The first item is empty: the model has begun.

        A caller that stops iterating closes the connection, which makes the model stop.

        Raises:
            Problem: Before the first item: it refuses the request, or does not answer. Later: it broke off.
        """
        try:
            async with self._session.post(f"{self.url}{path}", data=orjson.dumps(fields), headers=HEADERS) as response:
                if response.status != 200:
                    raise _problem(response.status, await response.read())
                yield b""
                async for chunk in response.content.iter_any():
                    yield chunk
        except TimeoutError as error:
            raise _slow() from error
        except aiohttp.ClientError as error:
            raise _gone(type(error).__name__) from error


def _problem(status: int, body: bytes) -> Problem:
    message = error_message(body.decode("utf-8", errors="replace"))
    if status in PASSED_ON:
        return Problem(status, message, code="refused_by_model")
    if status in (429, 503):
        return Problem(503, "The model has too much to do.", code="model_overloaded", retry_after_s=RETRY_AFTER_S)
    # What it says of its own trouble may hold addresses, so it stays in our log.
    return Problem(502, f"The model's server failed (HTTP {status}).", code="model_failed")


def _gone(why: str) -> Problem:
    return Problem(503, f"The model does not answer ({why}).", code="model_unavailable", retry_after_s=RETRY_AFTER_S)


def _slow() -> Problem:
    return Problem(504, "The model took too long.", code="model_timeout")
