"""Ask a vision-language model behind an OpenAI-compatible server (vLLM), many questions at once.

One user message per question: the image first, so that vLLM's prefix cache serves every question about it, then the
text. Images travel as the bytes they are (see `m4rag.vlm.images`). A request changes nothing on the server and
carries its seed, so one that got no answer is safe to send again. How many are in flight follows what the server takes
(see `m4rag.vlm.congestion`).
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import BytesIO
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from m4rag.errors import BadData, M4ragError, Unavailable, UsageError
from m4rag.vlm.congestion import CongestionWindow, Shed

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

    from m4rag.vlm.images import ImageData

ATTEMPTS = 5
BACKOFF_S = 0.5
MAX_WAIT_S = 60.0
CONNECT_S = 10.0
SHEDDING = frozenset({429, 503})
RETRIED = SHEDDING | {502, 504}
REFUSED = frozenset({400, 413, 422})

# Where an image's address begins. No text in a request can hold this: inside a JSON string its quotes are escaped.
ADDRESS = b'"url": "'

TOO_LONG = re.compile(r"(?:maximum|max) (?:context|model) length|context length|max_model_len", re.IGNORECASE)


class RequestRefused(BadData):
    """The server is well but will not take this one request. Holds the server's reason and nothing about the server."""


class ContextTooLong(RequestRefused):
    """The prompt and the answer do not fit into the model's context together."""


@dataclass(frozen=True)
class ServedModel:
    """What a server says about the model it serves.

    Attributes:
        name: Name that requests use.
        engine: Server and version, e.g. `vllm 0.32.0`.
        root: What the server loaded: a folder or a hub id.
        max_model_len: Context window in tokens, None if the server does not tell.
    """

    name: str
    engine: str
    root: str
    max_model_len: int | None


@dataclass(frozen=True)
class Completion:
    """A generated answer.

    Attributes:
        text: What the model said; its words of refusal if `finish_reason` is `refusal`.
        finish_reason: `stop`, `length`, `content_filter`, `refusal`, or whatever else the server says.
        prompt_tokens: Tokens in, image included, as the server counted them.
        completion_tokens: Tokens out.
        latency_ms: Wall time of the successful request in milliseconds.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float


class VlmClient:
    """An async client of one server; use it in `async with`, which opens and closes its connections.

    Args:
        url: Base URL ending in `/v1`.
        api_key: Bearer token, None for a server without authentication.
        timeout_s: Seconds for one request, queueing inside the server included.
        concurrency: Requests in flight at most, fewer while the server sheds load; further calls wait their turn.
        model: Name to ask for; None for the first that the server lists.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        concurrency: int = 32,
        model: str | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._wanted = model
        self.timeout_s = timeout_s
        self.concurrency = concurrency
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._window = CongestionWindow(concurrency)
        self._answers = 0
        self._asking_for_model = asyncio.Lock()
        self._model: ServedModel | None = None
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the connection pool; nothing is sent yet."""
        import aiohttp

        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=self.concurrency),
            timeout=aiohttp.ClientTimeout(total=self.timeout_s, sock_connect=CONNECT_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def model(self) -> ServedModel:
        """The model that the server serves (of several the one asked for, else the first). Asked once, then remembered.

        Raises:
            Unavailable: No server answers, it is not an OpenAI-compatible one, or it does not list the model.
        """
        async with self._asking_for_model:
            if self._model is None:
                self._model = await self._ask_for_model()
            return self._model

    async def generate(
        self,
        prompt: str,
        *,
        image: ImageData | None = None,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Completion:
        """Generate one answer.

        Args:
            prompt: The text of the user message.
            image: The image shown before the text, None for a text-only request.
            schema: JSON schema that the server's grammar holds the answer to, None for free text.
            max_tokens: Tokens after which generation is cut (`finish_reason` `length`).
            temperature: 0 for greedy decoding.
            seed: Seed of sampling.

        Raises:
            ContextTooLong: The prompt does not fit the model's context.
            RequestRefused: The server will not take this request for another reason (HTTP 400, 413, 422).
            Unavailable: The server is gone, overloaded beyond the retries, too slow, or denies access.
        """
        content: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
        if image is not None:
            content.insert(0, {"type": "image_url", "image_url": {"url": ""}})
        request: dict[str, Any] = {
            "model": (await self.model()).name,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        if schema is not None:
            named = {"name": "answer", "schema": schema, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": named}
        body = _with_image(json.dumps(request).encode(), image)
        answer, latency_ms = await self._with_retries("POST", f"{self.url}/chat/completions", body)
        return _completion(answer, latency_ms, self.url)

    async def _ask_for_model(self) -> ServedModel:
        listed, _ = await self._with_retries("GET", f"{self.url}/models")
        try:
            names = [str(one["id"]) for one in listed["data"]]
            name = names[0] if self._wanted is None else self._wanted
            chosen = listed["data"][names.index(name)]
        except ValueError:
            raise Unavailable(
                f"the server does not serve {self._wanted!r}, only {', '.join(names)}",
                where=self.url,
                remedy="Ask for one of these, or see what was deployed there.",
            ) from None
        except (KeyError, IndexError, TypeError):
            raise _not_openai(self.url) from None
        length = chosen.get("max_model_len")
        return ServedModel(
            name=name,
            engine=await self._engine(str(chosen.get("owned_by", "unknown"))),
            root=str(chosen.get("root") or name),
            max_model_len=None if length is None else int(length),
        )

    async def _engine(self, owner: str) -> str:
        """Name and version: vLLM tells them beside `/v1`; of another server only the owner it names is known."""
        try:
            told, _ = await self._with_retries("GET", f"{self.url.removesuffix('/v1')}/version")
        except (Unavailable, RequestRefused):
            return owner
        return f"vllm {told['version']}" if "version" in told else owner

    async def _with_retries(self, method: str, url: str, body: bytes | None = None) -> tuple[dict[str, Any], float]:
        """Send a request until it is answered, refused, or has failed too often."""
        import aiohttp

        tries, failures, answers = 0, 0, 0
        trouble, wait = "", 0.0
        while failures < ATTEMPTS:
            await asyncio.sleep(wait)
            tries, failures = tries + 1, failures + 1
            wait = _backoff(tries)
            try:
                async with self._window.slot():
                    answers = self._answers
                    reply = await self._send(method, url, body)
                self._answers += 1
                return reply
            except _Busy as busy:
                trouble = busy.what
                wait = wait if busy.wait_s is None else min(busy.wait_s, MAX_WAIT_S)
                if isinstance(busy, Shed) and not busy.alone:
                    failures -= 1  # it works for others: there are too many of us, and soon there are fewer
            except aiohttp.InvalidURL:
                raise UsageError("not a URL", where=url, remedy="Correct M4RAG_VLM_URL.") from None
            except aiohttp.ConnectionTimeoutError:
                trouble = f"no connection within {CONNECT_S:g} s"
            except TimeoutError:
                trouble = f"no answer within {self.timeout_s:g} s"
                if self._answers == answers:  # not even to others
                    raise Unavailable(
                        trouble, where=url, remedy="Raise M4RAG_VLM_TIMEOUT_S or lower M4RAG_VLM_CONCURRENCY."
                    ) from None
            except aiohttp.ClientError as error:
                trouble = str(error) or "the connection was closed without an answer"
        raise Unavailable(
            f"no answer after {ATTEMPTS} attempts ({trouble})",
            where=url,
            remedy="See whether the server still runs (`m4rag vlm status`, its log) and that M4RAG_VLM_URL is right.",
        )

    async def _send(self, method: str, url: str, body: bytes | None) -> tuple[dict[str, Any], float]:
        if self._session is None:
            raise RuntimeError("VlmClient is used outside `async with`")
        started = time.perf_counter()
        headers = {"Content-Type": "application/json"} if body is not None else {}
        # As a stream: aiohttp warns of large raw bytes, which it would send in one go.
        data = BytesIO(body) if body is not None else None
        async with self._session.request(method, url, data=data, headers=headers) as response:
            text = await response.text(errors="replace")
            latency_ms = (time.perf_counter() - started) * 1000
            if response.status != 200:
                raise _problem(response, text)
        try:
            answer = json.loads(text)
        except ValueError:
            raise _not_openai(url) from None
        if not isinstance(answer, dict):
            raise _not_openai(url)
        return answer, latency_ms


class _Busy(M4ragError):
    """The server asks to be left alone for a while; seconds if it says how long."""

    def __init__(self, what: str, wait_s: float | None) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class _Overloaded(_Busy, Shed):
    """It asks because it has too much to do."""


def _with_image(body: bytes, image: ImageData | None) -> bytes:
    """The request with its image put in as it is: a JSON writer would look at every letter of it."""
    if image is None:
        return body
    before, address, after = body.partition(ADDRESS)
    return b"".join((before, address, image.data_url.encode("ascii"), after))


def _backoff(tries: int) -> float:
    """Seconds to wait after so many tries: doubling up to eight times the first, jittered."""
    return BACKOFF_S * 2.0 ** min(tries - 1, 3) * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret


def _problem(response: ClientResponse, text: str) -> M4ragError:
    """The error that an HTTP status and an OpenAI error body stand for."""
    message, status, url = error_message(text), response.status, str(response.url)
    if status in RETRIED:
        kind = _Overloaded if status in SHEDDING else _Busy
        return kind(f"HTTP {status}: {message}", retry_after(response.headers.get("Retry-After"), datetime.now(UTC)))
    if status in REFUSED:
        return ContextTooLong(message) if TOO_LONG.search(message) else RequestRefused(message)
    remedies = {
        401: "Set M4RAG_VLM_API_KEY.",
        403: "Check what M4RAG_VLM_API_KEY is allowed to do.",
        404: "Check M4RAG_VLM_URL: it must be the base URL, ending in /v1, of a server that generates.",
    }
    return Unavailable(f"HTTP {status}: {message}", where=url, remedy=remedies.get(status, "See the server's log."))


def error_message(body: str) -> str:
    """The message in an OpenAI error body (or FastAPI's, or plain text), in one line of at most 500 characters."""
    message: Any = body
    try:
        parsed = json.loads(body)
        inner = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
        if isinstance(inner, dict):
            message = inner.get("message") or inner.get("detail") or body
        elif isinstance(inner, str):
            message = inner
    except ValueError:
        pass  # not JSON: the text itself is the message
    line = " ".join(str(message).split()) or "no reason given"
    return line if len(line) <= 500 else f"{line[:499]}…"


def retry_after(header: str | None, now: datetime) -> float | None:
    """Seconds that a `Retry-After` header asks for, given as seconds or as a date; None without a sensible one."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - now).total_seconds())
    except (TypeError, ValueError):
        return None


def _completion(answer: dict[str, Any], latency_ms: float, url: str) -> Completion:
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        refusal, content = message.get("refusal"), message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise _not_openai(url) from None
    usage = answer.get("usage") or {}
    return Completion(
        text=refusal or content or "",
        finish_reason="refusal" if refusal else str(choice.get("finish_reason")),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
        latency_ms=latency_ms,
    )


def _not_openai(url: str) -> Unavailable:
    return Unavailable(
        "the answer is not that of an OpenAI-compatible server",
        where=url,
        remedy="Check M4RAG_VLM_URL: it must be the server's base URL, ending in /v1.",
    )
