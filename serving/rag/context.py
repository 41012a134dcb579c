"""Puts passages into a conversation, as data that can't become instructions, and says which they were."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from m4rag.index.search import Hit
from m4rag.vlm.prompts import render_passages
from serving.rag.chat_request import ChatRequest, text_of

WORD = re.compile(r"\w+")
SHINGLE = 5
ALIKE = 0.8
"""Share of runs of five words in common from which two passages say the same."""


def pack(hits: Sequence[Hit], max_bytes: int) -> list[Hit]:
    """The passages to show: best first, none that says the same as a better one, as many as fit.

    Args:
        hits: What was found, best first.
        max_bytes: UTF-8 bytes of all passages together; the first is shown even where it is longer.
    """
    packed: list[Hit] = []
    seen: list[set[tuple[str, ...]]] = []
    size = 0
    for hit in hits:
        runs = _runs(hit.text)
        if any(len(runs & other) >= ALIKE * min(len(runs), len(other)) for other in seen):
            continue
        size += len(hit.text.encode())
        if packed and size > max_bytes:
            break
        packed.append(hit)
        seen.append(runs)
    return packed


def with_context(request: ChatRequest, passages: Sequence[Hit]) -> dict[str, Any]:
    """The fields of a request with passages put before the text of the user's last message; its images stay in front.

    Args:
        request: The request.
        passages: What to show, best first.
    """
    asked = request.fields["messages"][request.asking]
    content = asked["content"]
    images = [part for part in content if part["type"] == "image_url"] if isinstance(content, list) else []
    text = render_passages([(hit.title, hit.text) for hit in passages], text_of(asked))
    messages = list(request.fields["messages"])
    messages[request.asking] = {**asked, "content": [*images, {"type": "text", "text": text}]}
    return {**request.fields, "messages": messages}


def citations(passages: Sequence[Hit]) -> list[dict[str, Any]]:
    """The passages that were shown, numbered as the model saw them."""
    return [
        {
            "number": number,
            "chunk_id": hit.chunk_id,
            "document_id": hit.document_id,
            "title": hit.title,
            "source": hit.source,
            "language": hit.language,
            "score": hit.score,
        }
        for number, hit in enumerate(passages, start=1)
    ]


def _runs(text: str) -> set[tuple[str, ...]]:
    words = WORD.findall(text.casefold())
    if len(words) < SHINGLE:  # scripts without spaces too: there the letters are the words
        words = list("".join(words))
    return {tuple(words[place : place + SHINGLE]) for place in range(max(1, len(words) - SHINGLE + 1))}
