"""Reads a chat completion request: what the model gets, what is searched for, and what the caller wishes.

Only fields and content parts that are known are let through. The model's server would fetch addresses that stand in
other ones (`video_url`, `file`), or take a chat template from the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.rag.problems import Problem, invalid

PASSED = frozenset(
    {
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
        "n", "stop", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs",
        "response_format", "tools", "tool_choice", "parallel_tool_calls", "user", "metadata", "reasoning_effort",
        "top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids", "structured_outputs",
    }
)  # fmt: skip
"""Fields that reach the model's server: OpenAI's, and vLLM's for sampling."""

EXTENSION = "m4rag"
ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
IMAGE_URL = "data:image/"
MAX_CHOICES = 8


class Filters(BaseModel):
    """Which passages may be shown.

    Attributes:
        languages: Only passages in these languages; empty for all.
        sources: Only passages of these corpora; empty for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    languages: tuple[str, ...] = Field((), max_length=64)
    sources: tuple[str, ...] = Field((), max_length=64)


class Wish(BaseModel):
    """The request's `m4rag` field.

    Attributes:
        retrieve: `auto` as the policy says; `always` or `never` for this request.
        k: Passages to show; None for the policy's number.
        filters: Which passages may be shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    retrieve: Literal["auto", "always", "never"] = "auto"
    k: int | None = Field(None, ge=1, le=50)
    filters: Filters = Filters()


NO_WISH = Wish()


@dataclass(frozen=True)
class ChatRequest:
    """A chat completion request that was checked.

    Attributes:
        fields: What the model's server gets, `messages` included.
        asking: Position in `messages` of the last message by the user.
        question: Its text.
        images: `data:` URLs of all images of the conversation, in order.
        stream: Whether the answer is sent as it is made.
        wish: The caller's wishes.
    """

    fields: dict[str, Any]
    asking: int
    question: str
    images: tuple[str, ...]
    stream: bool
    wish: Wish


def read_chat_request(body: bytes, *, max_images: int, max_tokens: int) -> ChatRequest:
    """Check a request body.

    Args:
        body: The bytes of the request.
        max_images: Images in it at most.
        max_tokens: Largest number of tokens that it may ask for.

    Raises:
        Problem: It is not a chat completion request, or asks for something that is not allowed.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"The body is not JSON: {error}.", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise Problem(400, "The body is not a JSON object.", code="invalid_json")
    wish = _wish(fields.pop(EXTENSION, None))
    if unknown := sorted(fields.keys() - PASSED):
        raise Problem(400, f"Unknown parameter: {unknown[0]!r}.", code="unknown_parameter", param=unknown[0])
    messages = _messages(fields.get("messages"))
    images = tuple(image for message in messages for image in _images(message))
    if len(images) > max_images:
        raise invalid(f"The request has {len(images)} images, {max_images} are allowed.", "messages")
    _check_numbers(fields, max_tokens)
    stream = fields.get("stream") or False
    if not isinstance(stream, bool):
        raise invalid("stream must be true or false.", "stream")
    asking = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=-1)
    if asking < 0:
        raise invalid("There is no message by the user.", "messages")
    return ChatRequest(fields, asking, text_of(messages[asking]), images, stream, wish)


def text_of(message: dict[str, Any]) -> str:
    """The words of a message."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content or () if part["type"] == "text")


def _wish(given: Any) -> Wish:
    if given is None:
        return NO_WISH
    try:
        return Wish.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join([EXTENSION, *map(str, first["loc"])])
        raise invalid(f"{first['msg']}.", param) from None


def _check_numbers(fields: dict[str, Any], max_tokens: int) -> None:
    for name, most in (("max_tokens", max_tokens), ("max_completion_tokens", max_tokens), ("n", MAX_CHOICES)):
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise invalid(f"{name} must be a whole number from 1 to {most}.", name)


def _messages(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not given:
        raise invalid("messages must be a list with at least one message.", "messages")
    for place, message in enumerate(given):
        where = f"messages[{place}]"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise invalid(f"A message needs a role, one of {', '.join(sorted(ROLES))}.", where)
        content = message.setdefault("content", None)
        if isinstance(content, list):
            for number, part in enumerate(content):
                _check_part(part, f"{where}.content[{number}]")
        elif not isinstance(content, str | None):
            raise invalid("The content of a message must be text or a list of parts.", where)
    return given


def _check_part(part: Any, where: str) -> None:
    if not isinstance(part, dict):
        raise invalid("A content part must be an object.", where)
    if part.get("type") == "text":
        if not isinstance(part.get("text"), str):
            raise invalid("A text part needs its text.", where)
        return
    if part.get("type") != "image_url":
        raise invalid("A content part must be of type text or image_url.", where)
    if not isinstance(_url(part), str):
        raise invalid("An image part needs image_url.url.", where)
    if not _url(part)[: len(IMAGE_URL)].lower() == IMAGE_URL:
        raise invalid("An image must be a data: URL (data:image/...;base64,...): nothing is fetched.", where)


def _url(part: dict[str, Any]) -> Any:
    holder = part.get("image_url")
    return holder.get("url") if isinstance(holder, dict) else None


def _images(message: dict[str, Any]) -> Iterator[str]:
    content = message["content"]
    if isinstance(content, list):
        yield from (_url(part) for part in content if part["type"] == "image_url")
