"""Taking a part of a benchmark that keeps its balance."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from m4rag.schema import Question

Unit = tuple[str, str]
"""(stratum, parallel question): the same question in every variety that has it."""


def balanced(questions: Sequence[Question], limit: int) -> list[Question]:
    """At most `limit` questions, spread over prompt types and varieties; the same ones on every machine.

    The rule: a parallel question (the same one in all varieties) is taken whole where it fits. Within each stratum
    parallel questions are ordered by the SHA-256 of their id, and the strata take turns. A stratum is a prompt type;
    where each language-country pair has questions of its own (CVQA), it is a pair, and a question in English and in
    the language of the pair is one parallel question, so that both are taken. What is left when the
    next one does not fit is filled row by row: each row comes from the next parallel question, in the variety that
    has the fewest rows so far. A larger limit contains all the whole parallel questions of a smaller one.

    Args:
        questions: The questions.
        limit: How many to take; at least as many as there are takes all.

    Returns:
        The chosen questions in their original order.
    """
    if limit >= len(questions):
        return list(questions)
    units: dict[Unit, list[int]] = defaultdict(list)
    for position, question in enumerate(questions):
        units[_stratum(question), _parallel(question)].append(position)
    order = _interleaved(units)
    chosen: set[int] = set()
    while order and len(chosen) + len(units[order[0]]) <= limit:
        chosen.update(units[order.pop(0)])
    _fill(chosen, [units[unit] for unit in order], questions, limit)
    return [questions[position] for position in sorted(chosen)]


def _stratum(question: Question) -> str:
    return str(question.extra.get("pair") or question.prompt_type)


def _parallel(question: Question) -> str:
    """What the question is called in every variety: its `qa_id`, or the image it is about."""
    return str(question.extra.get("qa_id") or question.group)


def _interleaved(units: dict[Unit, list[int]]) -> list[Unit]:
    by_stratum: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        by_stratum[unit[0]].append(unit)
    ranked = [
        (rank, stratum, unit)
        for stratum, mine in by_stratum.items()
        for rank, unit in enumerate(sorted(mine, key=lambda unit: _hash(unit[1])))
    ]
    return [unit for _, _, unit in sorted(ranked)]


def _fill(chosen: set[int], units: list[list[int]], questions: Sequence[Question], limit: int) -> None:
    """Add single rows until the limit is reached, going round the units."""
    rows = Counter(questions[position].language for position in chosen)
    left = [list(unit) for unit in units]
    while len(chosen) < limit:
        for unit in left:
            if len(chosen) == limit or not unit:
                continue
            best = min(
                unit, key=lambda position: (rows[questions[position].language], _hash(questions[position].language))
            )
            unit.remove(best)
            rows[questions[best].language] += 1
            chosen.add(best)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
