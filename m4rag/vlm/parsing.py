"""Read the chosen option out of a model's text: strict, total, and never silent about why there is none.

Beside our rules stand those that the published numbers of M4-RAG were read with, for comparison only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from m4rag.schema import Status

THINKING_ENDS, THINKING_STARTS = "</think>", "<think>"
REFUSING_REASONS = frozenset({"content_filter", "refusal"})
ANSWER = "answer"

# "3", "3.", "3.0", "3. Foo", "3) Foo", "3: Foo", "(3)"; not "3.5", not "3 dishes".
NUMBER = re.compile(r"\s*\(?(-?\d{1,9})(?:\.0+)?(?:\s*$|[.):](?!\d))")

REFUSAL = re.compile(
    r"\b(?:I(?:'|’)?m sorry|I am sorry|I apologi[sz]e|I can(?:'|’)?t (?:help|assist|answer|provide|identify)"
    r"|I(?: am|(?:'|’)m) (?:unable|not able) to|I cannot|I can not|I won(?:'|’)t|I will not|I must decline"
    r"|as an AI(?: language)? (?:model|assistant))\b",
    re.IGNORECASE,
)

# What the published parser falls back on: the first of these, wherever it stands.
PUBLISHED = re.compile(r"""["']?answer["']?\s*:\s*["']?(\d+)""")
PLAIN = re.compile(r"0|[1-9][0-9]{0,8}")

# Control characters inside strings are lenient: vLLM's grammar lets a model write them raw.
DECODER = json.JSONDecoder(strict=False)


@dataclass(frozen=True)
class Parsed:
    """What was found: `choice` is a 0-based option, set if and only if `status` is `ok`."""

    choice: int | None
    status: Status


def parse(text: str, n_options: int, finish_reason: str | None = "stop") -> Parsed:
    """Take the answer from the last JSON object after any thinking block. Never raises.

    Args:
        text: The model's text, verbatim.
        n_options: How many options the question had; the model counts them from 1.
        finish_reason: Why the server says generation ended (`stop`, `length`, `content_filter`, ...).

    Returns:
        - `ok`: the object's `answer` is an option. `3`, `3.0`, `"3"` and `"3. Foo"` are all option 3.
        - `out_of_range`: it is an integer, but no option has that number.
        - `refused`: the server filtered the answer, or the model declines in words and gives no integer.
        - `truncated`: generation ended at its token limit before the object was complete.
        - `unparsable`: anything else.
    """
    if finish_reason in REFUSING_REASONS:
        return Parsed(None, Status.REFUSED)
    said = after_thinking(text)
    found, unfinished = _last_object(said)
    if finish_reason == "length" and (found is None or unfinished):
        return Parsed(None, Status.TRUNCATED)
    number = None if found is None else _integer(_answer(found))
    if number is not None:
        if 1 <= number <= n_options:
            return Parsed(number - 1, Status.OK)
        return Parsed(None, Status.OUT_OF_RANGE)
    return Parsed(None, Status.REFUSED if REFUSAL.search(said) else Status.UNPARSABLE)


def stated_number(text: str) -> int | None:
    """The integer that the last JSON object after any thinking block gives as its answer, an option or not."""
    found, _ = _last_object(after_thinking(text))
    return None if found is None else _integer(_answer(found))


def paper_parity(text: str) -> int | None:
    """The number that the published evaluation of M4-RAG reads, not yet checked against the options. Never raises.

    The whole text as a JSON object whose answer, as text, is a plain number; else, if the text is no JSON at all, the
    first `answer: <digits>` in it, be it in a thought, in an explanation or cut off. Its faults are kept on purpose.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        match = PUBLISHED.search(text)
        said = match[1] if match else ""
    else:
        said = str(found.get(ANSWER)) if isinstance(found, dict) else ""
    return int(said) if PLAIN.fullmatch(said) else None


def after_thinking(text: str) -> str:
    """What follows the last thinking block; nothing, if a block was opened and never closed."""
    said = text.rpartition(THINKING_ENDS)[2]
    return "" if THINKING_STARTS in said else said


def _last_object(text: str) -> tuple[dict[str, Any] | None, bool]:
    """The last complete outermost JSON object, and whether the text ends inside another one."""
    found: dict[str, Any] | None = None
    position = text.find("{")
    while position >= 0:
        try:
            found, end = DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
                return found, True
            end = position + 1
        except (ValueError, RecursionError):  # an integer of thousands of digits; thousands of brackets
            end = position + 1
        position = text.find("{", end)
    return found, False


def _answer(found: dict[str, Any]) -> Any:
    """The object's own answer, or the last one nested in it."""
    if ANSWER in found:
        return found[ANSWER]
    return next((inner[ANSWER] for inner in _nested(found) if ANSWER in inner), None)


def _nested(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object inside an object, last first."""
    waiting = list(found.values())
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict):
            yield inner
            waiting.extend(inner.values())
        elif isinstance(inner, list):
            waiting.extend(inner)


def _integer(answer: Any) -> int | None:
    """The integer that an answer states, whatever JSON type it came in; None for all else."""
    if isinstance(answer, bool):
        return None
    if isinstance(answer, int):
        return answer
    if isinstance(answer, float):
        return int(answer) if answer.is_integer() else None
    if isinstance(answer, str) and (number := NUMBER.match(answer)):
        return int(number[1])
    return None
