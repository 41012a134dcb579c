"""Encoders behind vLLM's (or any OpenAI-compatible) `/v1/embeddings`."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import SecretStr

from m4rag.encoders.base import PASSAGE, Query, passage_text, text_only, unit_vectors
from m4rag.errors import BadData, Unavailable, UsageError
from m4rag.schema import Chunk

if TYPE_CHECKING:
    import aiohttp
    import numpy as np
    from numpy.typing import NDArray

BATCH = 64
CONCURRENCY = 16
TIMEOUT_S = 120.0
CONNECT_TIMEOUT_S = 10.0

ATTEMPTS = 4
FIRST_PAUSE_S = 0.25
BUSY = frozenset({429, 502, 503, 504})
"""Answers after which the same request may do better; embedding changes nothing, so asking again is safe."""

log = logging.getLogger(__name__)

START = "Start it (vllm serve MODEL --runner pooling) or correct its address."

WHITE_PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAK0lEQVR42u3MMREAAAgEoNf+nTWEmwcBqMlNRyAQCAQC"
    "gUAgEAgEAsHzYAFQLQF/OJ8+2wAAAABJRU5ErkJggg=="
)
"""What a server is asked once to learn whether it takes images."""

Item = tuple[str, str | None]
"""A text and the path of its image."""

Request = tuple[dict[str, Any], int]
"""What is sent and how many vectors it asks for."""

T = TypeVar("T")


class EndpointEncoder:
    """A pooling server's model. Its name, vector length and whether it takes images are asked from the server once.

    A model that takes images gets everything as chat messages, texts too: the message form goes through the model's
    chat template and the plain form does not, and queries and passages must be written alike. Passages come with the
    picture of their page, if it was a file when the corpus was ingested. A text model gets plain texts in batches.
    Vectors are cut and normalised here, so any `dim` works whatever the server's Matryoshka settings.

    Args:
        base_url: Address ending in `/v1`.
        spec: What `load` was given.
        api_key: Bearer token.
        dim: Numbers to keep of each vector, None for all.
        model: Name to ask for; None for the first that the server lists.

    Raises:
        Unavailable: The server does not answer, serves no embedding model, or does not list `model`.
        UsageError: `dim` is larger than the model has.
    """

    languages = None
    tokenizer = None
    max_tokens = None

    def __init__(
        self,
        base_url: str,
        *,
        spec: str,
        api_key: SecretStr | None = None,
        dim: int | None = None,
        model: str | None = None,
    ) -> None:
        self.spec = spec
        self._wanted = model
        self._url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else {}
        self._model, root = self._run(self._served_model)
        self.name = PurePath(root).name
        self.modalities = ("text", "image") if self._takes_images() else ("text",)
        native = self._embed(self._requests([("dimension", None)])).shape[1]
        if dim is not None and not 1 <= dim <= native:
            raise UsageError(f"{dim} dimensions of an encoder that has {native}", where=self.name)
        self._native: int = native
        self.dim: int = dim or native

    @property
    def identity(self) -> dict[str, Any]:
        """The served model as its server names it, the vectors' length, and how texts are written."""
        form = "messages, page pictures" if "image" in self.modalities else "input"
        return {"kind": "openai-embeddings", "model": self.name, "dim": self.dim, "form": form, "passage": PASSAGE}

    def encode_queries(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Queries to float32 [n, dim], every row of length 1.

        Raises:
            UsageError: A query has an image and the model takes none.
            BadData: The server refuses a query (longer than its window, an unreadable image).
            Unavailable: The server stopped answering.
        """
        if "image" not in self.modalities:
            text_only(queries, self.name)
        return self._encode([(query.text, query.image) for query in queries])

    def encode_passages(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        """Passages, titles and page pictures included, to float32 [n, dim], every row of length 1.

        A picture that was a web address when the corpus was ingested is not fetched: its passage goes without, and the
        log says how many did.

        Raises:
            BadData: The server refuses a passage, for example because it is longer than its window; or a picture is
                not what it was when the corpus was ingested.
            Unavailable: The server stopped answering.
        """
        texts = [passage_text(chunk) for chunk in chunks]
        return self._encode(list(zip(texts, self._pictures(chunks), strict=True)))

    def _pictures(self, chunks: Sequence[Chunk]) -> list[str | None]:
        if "image" not in self.modalities:
            return [None] * len(chunks)
        if left_out := sum(chunk.image is not None and chunk.image_digest is None for chunk in chunks):
            log.warning(
                "%d pictures were no files when the corpus was ingested: their text alone is embedded", left_out
            )
        return [_ingested(chunk) for chunk in chunks]

    def _encode(self, items: Sequence[Item]) -> NDArray[np.float32]:
        import numpy as np

        if not items:
            return np.empty((0, self.dim), dtype=np.float32)
        raw = self._embed(self._requests(items))
        if raw.shape != (len(items), self._native):
            raise BadData(f"vectors {raw.shape}, not {(len(items), self._native)}: another model?", where=self._url)
        return unit_vectors(raw, self.dim, self.name)

    def _requests(self, items: Sequence[Item]) -> list[Request]:
        if "image" in self.modalities:
            return [({"messages": _messages(text, _data_url(image) if image else None)}, 1) for text, image in items]
        batches = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
        return [({"input": [text for text, _ in batch]}, len(batch)) for batch in batches]

    def _takes_images(self) -> bool:
        try:
            self._embed([({"messages": _messages("white", WHITE_PNG)}, 1)])
        except BadData:
            return False
        return True

    def _embed(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """Vectors of all requests in order, `CONCURRENCY` in flight at once."""
        import numpy as np

        async def all_of_them(session: aiohttp.ClientSession) -> list[NDArray[np.float32]]:
            free = asyncio.Semaphore(CONCURRENCY)

            async def one(request: Request) -> NDArray[np.float32]:
                fields, size = request
                async with free:
                    payload = {"model": self._model, "encoding_format": "base64", **fields}
                    return _vectors(await self._ask(session, "POST", "/embeddings", payload), size, self._url)

            return await asyncio.gather(*map(one, requests))

        return np.concatenate(self._run(all_of_them))

    def _run(self, work: Callable[[aiohttp.ClientSession], Awaitable[T]]) -> T:
        import aiohttp

        async def session_around() -> T:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
            async with aiohttp.ClientSession(timeout=timeout, headers=self._headers) as session:
                return await work(session)

        return asyncio.run(session_around())

    async def _served_model(self, session: aiohttp.ClientSession) -> tuple[str, str]:
        models = (await self._ask(session, "GET", "/models", None)).get("data") or []
        if not models:
            raise Unavailable("the server serves no model", where=self._url)
        named = {str(one["id"]): str(one.get("root") or one["id"]) for one in models}
        name = next(iter(named)) if self._wanted is None else self._wanted
        if name not in named:
            raise Unavailable(f"the server does not serve {name!r}, only {', '.join(named)}", where=self._url)
        return name, named[name]

    async def _ask(
        self, session: aiohttp.ClientSession, method: str, path: str, payload: dict[str, Any] | None
    ) -> dict[str, Any]:
        """One request; asked again while the server is busy or the connection breaks, never after a timeout."""
        import aiohttp

        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
            try:
                async with session.request(method, self._url + path, json=payload) as response:
                    if response.status == 200:
                        return await _json(response, self._url)
                    problem = f"{response.status} {_message(await response.text())}"
                    if response.status not in BUSY:
                        break
            except aiohttp.ClientConnectionError as error:
                problem = str(error) or type(error).__name__
            except TimeoutError:
                raise Unavailable(f"no answer in {TIMEOUT_S:.0f} s", where=self._url + path, remedy=START) from None
        if problem.startswith(("400 ", "413 ", "422 ")):
            raise BadData(f"the server refuses it: {problem}", where=self._url + path)
        raise Unavailable(problem, where=self._url + path, remedy=START)


def _messages(text: str, url: str | None) -> list[dict[str, Any]]:
    image = [{"type": "image_url", "image_url": {"url": url}}] if url else []
    words = [{"type": "text", "text": text}] if text or not url else []
    return [{"role": "user", "content": image + words}]


def _ingested(chunk: Chunk) -> str | None:
    """The page's picture, if it still is the one that the index is named after."""
    from m4rag.vlm.images import read_image

    if chunk.image is None or chunk.image_digest is None:
        return None
    if read_image(chunk.image).digest != chunk.image_digest:
        raise BadData(
            "the picture changed since the corpus was ingested", where=chunk.image, remedy="Ingest the corpus again."
        )
    return chunk.image


def _data_url(image: str) -> str:
    from m4rag.vlm.images import read_image

    return read_image(image).data_url


def _vectors(answer: dict[str, Any], size: int, where: str) -> NDArray[np.float32]:
    """Vectors of one answer in the order of its inputs."""
    import numpy as np

    try:
        items = sorted(answer["data"], key=lambda item: item["index"])
        rows = [np.frombuffer(base64.b64decode(item["embedding"], validate=True), dtype="<f4") for item in items]
        stacked = np.stack(rows)
    except (KeyError, TypeError, ValueError) as error:
        raise BadData(f"not an embeddings answer ({error!r})", where=where) from None
    if len(stacked) != size:
        raise BadData(f"{len(stacked)} vectors for {size} inputs", where=where)
    return stacked


async def _json(response: aiohttp.ClientResponse, where: str) -> dict[str, Any]:
    try:
        answer = await response.json(content_type=None)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise BadData("the answer is not a JSON object", where=where, remedy=START)
    return answer


def _message(body: str) -> str:
    """The server's own words out of an error answer."""
    try:
        answer = json.loads(body)
        error = answer.get("error", answer)
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = body
    return " ".join(str(text).split())[:300]
