"""What a benchmark costs: GPU hours of a model from the requests it answers and how fast it answers them.

    GPU hours = GPUs of a replica x (start-up + requests / requests a second)
              = GPUs of a replica x (start-up + tokens / tokens a second)

No speed is guessed. A measured one is the user's; the published ones are few, and other models have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from m4rag.deploy.catalog import ServedModel, hardware
from m4rag.errors import UsageError

Basis = Literal["measured", "published"]

STARTUP_S = 660.0
"""A published start of vLLM took 11 minutes (CUDA, weights, compiling, profiling, graphs); 10 to 60 are reported."""


@dataclass(frozen=True)
class Work:
    """What a model is asked.

    Attributes:
        requests: Number of requests.
        prompt_tokens: Tokens in, images included, all requests together.
        completion_tokens: Tokens out, all requests together.
    """

    requests: int
    prompt_tokens: float
    completion_tokens: float

    @property
    def tokens(self) -> float:
        """Tokens in and out."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Published:
    """Requests a second of a replica, as somebody else measured them, with 128 tokens out.

    Attributes:
        gpus: H100 GPUs that it had.
        photo: With a picture of 640 x 480 and 128 tokens of text ("visual reasoning").
        page: With a picture of 1680 x 2240 and 64 tokens of text ("DocVQA").
    """

    gpus: int
    photo: float
    page: float


PUBLISHED_SOURCE = "vLLM 0.7.2, lower bounds"
PUBLISHED: Mapping[str, Published] = {
    "qwen2-5-vl-3b": Published(gpus=1, photo=4.3, page=1.1),
    "qwen2-5-vl-7b": Published(gpus=1, photo=3.1, page=0.9),
    "qwen2-5-vl-72b": Published(gpus=4, photo=1.2, page=0.5),
    "qwen2-5-vl-72b-fp8": Published(gpus=4, photo=2.2, page=0.9),
}
"""By name in the table of models; RedHatAI's model cards, bf16 and FP8, on H100. A later vLLM is faster."""

PHOTO_TOKENS = 23 * 17 + 128
PAGE_TOKENS = 60 * 80 + 64
"""Tokens in of these requests: a token for 28 x 28 pixels, and the text. Longer requests are slower than published."""
PUBLISHED_COMPLETION_TOKENS = 128


@dataclass(frozen=True)
class Cost:
    """What a benchmark costs with one model. Pairs are the least and the most; they are equal where it was measured.

    Attributes:
        model: The model's name in the table.
        gpus: GPUs of a replica.
        basis: Where the speed is from; None where nobody knows it, and then there are no hours.
        hours: Wall time of one replica in hours, start-up included.
        gpu_hours: GPU hours.
        money: `gpu_hours` times the price; None without a price.
    """

    model: str
    gpus: int
    basis: Basis | None = None
    hours: tuple[float, float] | None = None
    gpu_hours: tuple[float, float] | None = None
    money: tuple[float, float] | None = None


def work(questions: int, settings: int, prompt_tokens: float, completion_tokens: float) -> Work:
    """The requests of a benchmark: every question once in every setting.

    Args:
        questions: Number of questions.
        settings: Number of settings.
        prompt_tokens: Tokens in of a request on average, its image included.
        completion_tokens: Tokens out of a request on average.
    """
    requests = questions * settings
    return Work(requests, requests * prompt_tokens, requests * completion_tokens)


def cost(
    model: ServedModel,
    asked: Work,
    tokens_per_second: float | None = None,
    *,
    startup_s: float = STARTUP_S,
    price_per_gpu_hour: float | None = None,
) -> Cost:
    """What it costs to have a model answer.

    Args:
        model: The model, of the table or one's own.
        asked: What it is asked.
        tokens_per_second: Tokens in and out that one replica handles a second, measured. Without it, a published speed
            on as many GPUs as the table gives the model is taken if its requests were as long as these, or none.
        startup_s: Seconds from the GPUs being taken to the first answer.
        price_per_gpu_hour: Price of a GPU hour in any currency.

    Raises:
        UsageError: The model runs without a GPU.
    """
    gpus = hardware(model.hardware).gpus
    if gpus == 0:
        raise UsageError(f"{model.name} runs on {model.hardware}, which has no GPU to pay for")
    published = PUBLISHED.get(model.name)
    seconds: tuple[float, float]
    basis: Basis
    if tokens_per_second is not None:
        basis, seconds = "measured", (asked.tokens / tokens_per_second,) * 2
    elif published is not None and published.gpus == gpus and _as_published(asked):
        basis, seconds = "published", (asked.requests / published.photo, asked.requests / published.page)
    else:
        return Cost(model.name, gpus)
    hours = _scaled((startup_s + seconds[0], startup_s + seconds[1]), 1 / 3600)
    gpu_hours = _scaled(hours, gpus)
    money = None if price_per_gpu_hour is None else _scaled(gpu_hours, price_per_gpu_hour)
    return Cost(model.name, gpus, basis, hours, gpu_hours, money)


def tokens_per_second(asked: Work, seconds_of_requests: float, in_flight: float) -> float:
    """How fast a server was, from how long its requests took.

    Args:
        asked: What it answered.
        seconds_of_requests: Wall times of all requests, added up.
        in_flight: Requests that were in flight on average (Little's law: seconds of work = added seconds / in flight).

    Raises:
        UsageError: Nothing was answered.
    """
    if asked.tokens <= 0 or seconds_of_requests <= 0:
        raise UsageError("no answer with its tokens and its time to measure a speed from")
    return asked.tokens * in_flight / seconds_of_requests


def assumptions(costs: Iterable[Cost], startup_s: float) -> list[str]:
    """What the figures take for granted, a sentence each."""
    bases = {one.basis for one in costs}
    said = [
        f"{startup_s / 60:g} minutes of start-up are paid for. With n replicas the start-up is paid n times, and the "
        "rest takes an n-th of the time and the same GPU hours.",
        "The server is busy for the whole run. Captions, the judge and repeated requests are not counted.",
    ]
    if "measured" in bases:
        said.append("measured: the speed of one replica that was given, tokens in and out together.")
    if "published" in bases:
        said.append(
            f"published, {PUBLISHED_SOURCE}, so the times are upper bounds. From requests with a small picture "
            f"({PHOTO_TOKENS} tokens in) to those with a page ({PAGE_TOKENS:,}), {PUBLISHED_COMPLETION_TOKENS} out."
        )
    if None in bases:
        said.append(
            "measure it: no speed of this model on this many GPUs with requests of this length is known. Give one with "
            "--tokens-per-second."
        )
    return said


def _as_published(asked: Work) -> bool:
    """Whether the slowest of the published requests were at least as long as these are on average."""
    return (
        asked.prompt_tokens <= asked.requests * PAGE_TOKENS
        and asked.completion_tokens <= asked.requests * PUBLISHED_COMPLETION_TOKENS
    )


def _scaled(pair: tuple[float, float], factor: float) -> tuple[float, float]:
    return (pair[0] * factor, pair[1] * factor)
