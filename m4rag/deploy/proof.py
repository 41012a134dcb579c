"""Prove that a deployed model serves: it is listed under its name, and it answers about a picture (or embeds one)."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

from pydantic import SecretStr

from m4rag.errors import CheckFailed

PROMPT = "What colour is this picture? Answer in one word."
MAX_TOKENS = 16
TIMEOUT_S = 300.0
"""The first answer of a new server may wait until kernels are compiled."""

SIDE = 64
RED = (200, 30, 30)


@dataclass(frozen=True)
class Proof:
    """What a server did when it was asked.

    Attributes:
        url: Where it was asked, ending in `/v1`.
        model: The name it serves under.
        engine: Server and version; "" where it was not asked.
        max_model_len: Its context window in tokens, None where it was not told.
        answer: What it said about the picture, None of an embedding model.
        dimension: Length of its vectors, None of a model that generates.
        latency_ms: Milliseconds of that request.
    """

    url: str
    model: str
    engine: str
    max_model_len: int | None
    answer: str | None
    dimension: int | None
    latency_ms: float


def prove(
    url: str,
    served_name: str,
    task: Literal["generate", "embed"],
    *,
    api_key: SecretStr | None = None,
    dimension: int | None = None,
) -> Proof:
    """Ask a server for its models and for one answer.

    Args:
        url: Its base address, ending in `/v1`.
        served_name: The name that it must list.
        task: `generate` asks about a picture, `embed` embeds one.
        api_key: Bearer token.
        dimension: Length that the vectors must have, None for any.

    Raises:
        CheckFailed: It answers with nothing, or with vectors of another length.
        Unavailable: It cannot be reached, or does not list the name.
        BadData: It refuses the request.
    """
    if task == "embed":
        return _embedded(url, served_name, api_key, dimension)
    return asyncio.run(_answered(url, served_name, api_key))


async def _answered(url: str, served_name: str, api_key: SecretStr | None) -> Proof:
    from m4rag.vlm.client import VlmClient
    from m4rag.vlm.images import read_image

    key = api_key.get_secret_value() if api_key else None
    async with VlmClient(url, api_key=key, timeout_s=TIMEOUT_S, model=served_name) as client:
        model = await client.model()
        completion = await client.generate(PROMPT, image=read_image(picture()), max_tokens=MAX_TOKENS)
    if not completion.text.strip():
        raise CheckFailed(
            f"{served_name} says nothing about a picture (it stopped for `{completion.finish_reason}`)",
            where=url,
            remedy="Check the model's chat template and its log.",
        )
    return Proof(url, model.name, model.engine, model.max_model_len, completion.text, None, completion.latency_ms)


def _embedded(url: str, served_name: str, api_key: SecretStr | None, dimension: int | None) -> Proof:
    from m4rag.encoders import Query
    from m4rag.encoders.endpoint import EndpointEncoder
    from m4rag.vlm.images import read_image

    encoder = EndpointEncoder(url, spec=url, api_key=api_key, model=served_name)
    started = time.perf_counter()
    image = read_image(picture()).data_url if "image" in encoder.modalities else None
    vectors = encoder.encode_queries([Query(text=PROMPT, image=image)])
    latency_ms = (time.perf_counter() - started) * 1000
    found = int(vectors.shape[1])
    if dimension is not None and found != dimension:
        raise CheckFailed(
            f"{served_name} makes vectors of {found} numbers, not {dimension}",
            where=url,
            remedy="Deploy the model that the index was built with.",
        )
    return Proof(url, served_name, "", None, None, found, latency_ms)


def picture() -> bytes:
    """A small red PNG."""
    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (SIDE, SIDE), RED).save(buffer, "PNG")
    return buffer.getvalue()
