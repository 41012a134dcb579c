"""Which questions the report shows: few, from many scripts, and those that tell something.

The choice is greedy and deterministic: each next example is the one that adds most of what the others lack (a script,
a kind of outcome, a language), never two with the same picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from m4rag.bench.contexts import NO_RAG, TEXT_ONLY, needs_gold, retrieves
from m4rag.bench.joined import answer_at, gold_shown, question_at, right
from m4rag.bench.option_order import shown_order
from m4rag.bench.runs import Passage
from m4rag.errors import BadData
from m4rag.schema import Answer, Question, Status

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLES = 12
UNUSABLE = 3

GAINED = "gained with retrieval"
"""Wrong without context, right in a setting that could be served: one that searches, and without the right answer."""
LOST = "lost with retrieval"
"""Right without context, wrong in such a setting."""
MISLED = "misled by context"
"""Lost, and no passage shown with the wrong answer was of a gold document."""
RIGHT = "right everywhere"
WRONG = "wrong everywhere"
MIXED = "right in some settings"


@dataclass(frozen=True)
class Shown:
    """A passage as it was put before the model."""

    passage: Passage
    score: float
    gold: bool


@dataclass(frozen=True)
class Example:
    """One question with everything that happened to it.

    Attributes:
        question: The question.
        outcome: One of the six outcomes of this module.
        order: The option, as a 0-based place in the dataset, at each position that was shown.
        answers: One per setting, in the plan's order.
        passages: Setting to what the model was shown, best first; only settings that showed something.
    """

    question: Question
    outcome: str
    order: tuple[int, ...]
    answers: tuple[Answer, ...]
    passages: dict[str, tuple[Shown, ...]]


def choose_examples(
    questions: pa.Table,
    answers: Mapping[str, pa.Table],
    passages: pa.Table,
    script: Callable[[str], str],
    limit: int = EXAMPLES,
    option_order: int | None = None,
) -> list[Example]:
    """Pick and load the examples.

    Args:
        questions: All questions.
        answers: Setting to its answers, in the order of the questions.
        passages: All passages shown.
        script: Language code to script code.
        limit: How many at most.
        option_order: Seed of the order that options were shown in, None for the dataset's.

    Returns:
        The examples, retrieval's effects first.

    Raises:
        BadData: An answer names a passage that the run does not hold.
    """
    outcomes = _outcomes(questions, answers, passages)
    positions = _spread(questions, outcomes, script, limit)
    order = (GAINED, LOST, MISLED, MIXED, RIGHT, WRONG)
    positions.sort(key=lambda position: (order.index(outcomes[position]), position))
    loaded = [
        (question_at(questions, position), outcomes[position], [answer_at(rows, position) for rows in answers.values()])
        for position in positions
    ]
    texts = _passages_by_id(passages, {hit.chunk_id for _, _, given in loaded for a in given for hit in a.retrieved})
    return [
        Example(
            question=question,
            outcome=outcome,
            order=shown_order(option_order, question.question_id, len(question.options)),
            answers=tuple(given),
            passages={answer.setting: _shown(question, answer, texts) for answer in given if answer.retrieved},
        )
        for question, outcome, given in loaded
    ]


def unusable_answers(answers: Mapping[str, pa.Table], limit: int = UNUSABLE) -> dict[str, list[Answer]]:
    """The first answers of each kind that can't be used, by kind.

    Args:
        answers: Setting to its answers, in the order of the questions.
        limit: How many of a kind at most.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    given = pa.concat_tables(answers.values())
    found = {}
    for status in Status:
        positions = pc.indices_nonzero(pc.equal(given["status"], status.value)).to_pylist()[:limit]
        if positions and status is not Status.OK:
            found[status.value] = [answer_at(given, position) for position in positions]
    return found


def _outcomes(questions: pa.Table, answers: Mapping[str, pa.Table], passages: pa.Table) -> list[str]:
    flags = {setting: right(rows, questions).to_pylist() for setting, rows in answers.items()}
    bare = flags.get(NO_RAG) or flags.get(TEXT_ONLY)
    searching = {setting: column for setting, column in flags.items() if retrieves(setting) and not needs_gold(setting)}
    gold = {setting: gold_shown(answers[setting], questions, passages) for setting in searching}
    outcomes = []
    for position in range(questions.num_rows):
        given = [column[position] for column in flags.values()]
        found = {setting: column[position] for setting, column in searching.items()}
        wrong = [gold[setting] for setting, is_right in found.items() if not is_right]
        if bare and found and not bare[position] and any(found.values()):
            outcomes.append(GAINED)
        elif bare and bare[position] and any(shown is not None and not shown[position] for shown in wrong):
            outcomes.append(MISLED)
        elif bare and bare[position] and wrong:
            outcomes.append(LOST)
        else:
            outcomes.append(RIGHT if all(given) else MIXED if any(given) else WRONG)
    return outcomes


def _spread(questions: pa.Table, outcomes: Sequence[str], script: Callable[[str], str], limit: int) -> list[int]:
    languages = questions["language"].to_pylist()
    groups = questions["group"].to_pylist()
    # A few candidates of each language and outcome are enough to choose among.
    taken: Counter[tuple[str, str]] = Counter()
    candidates = []
    for position, kind in enumerate(zip(languages, outcomes, strict=True)):
        taken[kind] += 1
        if taken[kind] <= limit:
            candidates.append(position)

    chosen: list[int] = []
    seen: Counter[str] = Counter()
    pictures: set[str] = set()

    def gain(position: int) -> float:
        language = languages[position]
        return 3 / (1 + seen[script(language)]) + 2 / (1 + seen[outcomes[position]]) + 1 / (1 + seen[language])

    while len(chosen) < limit:
        open_ = [position for position in candidates if groups[position] not in pictures]
        if not open_:
            break
        best = max(open_, key=lambda position: (gain(position), -position))
        chosen.append(best)
        pictures.add(groups[best])
        seen.update((script(languages[best]), outcomes[best], languages[best]))
    return chosen


def _passages_by_id(passages: pa.Table, wanted: set[str]) -> dict[str, Passage]:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = passages.filter(pc.is_in(passages["chunk_id"], value_set=pa.array(sorted(wanted), pa.string())))
    return {row["chunk_id"]: Passage.model_validate(row) for row in rows.to_pylist()}


def _shown(question: Question, answer: Answer, texts: Mapping[str, Passage]) -> tuple[Shown, ...]:
    shown = []
    for hit in answer.retrieved:
        passage = texts.get(hit.chunk_id)
        if passage is None:
            raise BadData(f"passage {hit.chunk_id} was shown but is not kept", where=answer.question_id)
        bare = passage.document_id.removesuffix(f":{passage.language}")
        shown.append(Shown(passage, hit.score, gold=not {passage.document_id, bare}.isdisjoint(question.gold)))
    return tuple(shown)
