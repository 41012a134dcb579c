"""Scores of a benchmark run: accuracy with intervals, by every breakdown, beside the baselines.

Nothing is dropped: a question that has no answer in a setting counts as wrong, with status `error`. Intervals are 95 %,
bootstrapped over images (see `m4rag.bench.statistics`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from m4rag.bench.contexts import NO_RAG, TEXT_ONLY, has_context
from m4rag.bench.option_order import shown_order
from m4rag.bench.paired import Difference, against
from m4rag.bench.positions import Positions, positions
from m4rag.bench.statistics import (
    ALL,
    RESAMPLES,
    Estimate,
    Partition,
    Sums,
    estimate,
    everything,
    exact,
    group_sums,
    macro,
    partition,
    resampled_means,
    wilson_estimate,
)
from m4rag.errors import BadData
from m4rag.languages import Variety, lookup
from m4rag.schema import Answer, Question, Status

if TYPE_CHECKING:
    import numpy as np

VARIETY = "variety"
PAIR = "pair"
DIMENSIONS = (VARIETY, "language", "joshi", "script", "category", "prompt_type", PAIR)
UNNAMED = "unnamed"


class SettingScores(BaseModel):
    """How one setting did.

    Attributes:
        setting: Setting name.
        model: Served model name, "" if no question was answered.
        images: `all` or `none`: whether the model saw the images.
        n: Questions.
        accuracy: Share of right answers over all questions (row mean).
        macro: Mean over varieties of their accuracies; where questions belong to language-country pairs, whatever
            language they are asked in (CVQA), mean over pairs.
        invalid: Status to number of questions, for every status but `ok`.
        invalid_rate: Share of questions without a valid answer; Wilson interval.
        breakdowns: Dimension (`DIMENSIONS`) to value to accuracy; a dimension that the dataset does not have is empty.
        latency_p50_ms: Median wall time of a generation in milliseconds, 0 if none was timed.
        latency_p95_ms: 95th percentile of it.
        prompt_tokens: Tokens in, summed.
        completion_tokens: Tokens out, summed.
        positions: Where the chosen and the right options stood; None if no answer is valid, and in scores that an
            earlier version wrote.
        effect: What context gives: accuracy minus that of `no_rag`, question by question, p adjusted over the run's
            settings with context. None for settings without context, in runs without `no_rag`, and in scores that an
            earlier version wrote.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    setting: str
    model: str
    images: str
    n: int
    accuracy: Estimate
    macro: Estimate
    invalid: dict[str, int]
    invalid_rate: Estimate
    breakdowns: dict[str, dict[str, Estimate]]
    latency_p50_ms: float
    latency_p95_ms: float
    prompt_tokens: int
    completion_tokens: int
    positions: Positions | None = None
    effect: Difference | None = None


class Scores(BaseModel):
    """Scores of a run.

    Attributes:
        dataset: Dataset name.
        questions: Number of questions.
        baselines: `random` (expectation of a guess, exact), `majority` (always the most frequent gold position),
            `text_only` (the questions without their images; None if that was not run).
        settings: One entry a setting, in the order of the answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    questions: int
    baselines: dict[str, Estimate | None]
    settings: tuple[SettingScores, ...]


@dataclass(frozen=True)
class Asked:
    """The questions as columns.

    Attributes:
        positions: Question id to row.
        gold: 0-based gold index, shape (rows,).
        options: Number of options, shape (rows,).
        shown: Position that each of the dataset's options was shown at, shape (rows, most options).
        groups: Image of each row as a number from 0, shape (rows,).
        partitions: Dimension to breakdown.
    """

    positions: dict[str, int]
    gold: np.ndarray
    options: np.ndarray
    shown: np.ndarray
    groups: np.ndarray
    partitions: dict[str, Partition]

    @property
    def n(self) -> int:
        """Questions."""
        return len(self.gold)

    @property
    def images(self) -> int:
        """Distinct images."""
        return int(self.groups.max()) + 1

    @property
    def gold_shown(self) -> np.ndarray:
        """Position that the gold option was shown at, shape (rows,)."""
        gold: np.ndarray = self.shown[range(self.n), self.gold]
        return gold


def score(
    questions: Sequence[Question],
    answers: Sequence[Answer],
    *,
    images: str = "all",
    option_order: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Scores:
    """Score the answers to a set of questions.

    Args:
        questions: All questions that were asked, of one dataset.
        answers: The answers of all settings, in any order.
        images: `all` or `none`, as the run had it; the setting `text_only` never has images.
        option_order: Seed of the order that options were shown in, as the run had it; what is about positions is
            about these.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        BadData: There are no questions or they are of two datasets, a question id is doubled, an answer is doubled or
            belongs to no question, a choice is not an option of its question, or a setting has answers of two models.
    """
    import numpy as np

    datasets = {question.dataset for question in questions}
    if len(datasets) != 1:
        raise BadData(f"questions of {len(datasets)} datasets", remedy="Score one dataset at a time.")
    asked = _columns(questions, option_order)
    by_setting: dict[str, list[Answer]] = {}
    for answer in answers:
        by_setting.setdefault(answer.setting, []).append(answer)
    right = {setting: np.zeros(asked.n, dtype=bool) for setting in by_setting}
    scored = [
        _score_setting(
            asked, setting, mine, right[setting], "none" if setting == TEXT_ONLY else images, resamples, seed
        )
        for setting, mine in by_setting.items()
    ]
    effects = context_effects(right, asked.groups, resamples=resamples, seed=seed)
    settings = tuple(row.model_copy(update={"effect": effects.get(row.setting)}) for row in scored)
    return Scores(
        dataset=datasets.pop(),
        questions=asked.n,
        baselines={
            "random": random_baseline(asked.options, asked.images),
            "majority": majority_baseline(asked.gold_shown, asked.groups, resamples, seed),
            "text_only": _text_only(settings),
        },
        settings=settings,
    )


def random_baseline(options: np.ndarray, images: int) -> Estimate:
    """What guessing gives: the exact expectation, so both ends are the value.

    Args:
        options: Number of options of each question, shape (rows,).
        images: Distinct images.
    """
    return exact(float((1 / options).mean()), len(options), images)


def majority_baseline(gold: np.ndarray, groups: np.ndarray, resamples: int, seed: int) -> Estimate:
    """What always choosing the most frequent gold position (the first of equals) gives.

    Args:
        gold: 0-based gold index of each question, shape (rows,).
        groups: Image of each question as a number from 0, shape (rows,).
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.
    """
    import numpy as np

    right = (gold == np.bincount(gold).argmax()).astype(float)
    sums = group_sums(right, groups, everything(len(gold)))
    return sums.estimates(resampled_means({ALL: sums}, resamples=resamples, seed=seed)[ALL])[ALL]


def context_effects(
    right: Mapping[str, np.ndarray], groups: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Difference]:
    """What context gives in each setting that shows any, against `no_rag`.

    Args:
        right: Setting to whether each question is answered rightly, shape (rows,).
        groups: Image of each question as a number from 0, shape (rows,).
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        Setting to difference, p adjusted over these settings; empty without `no_rag`.
    """
    if NO_RAG not in right:
        return {}
    shown = {setting: flags for setting, flags in right.items() if has_context(setting)}
    return against(right[NO_RAG], shown, groups, resamples=resamples, seed=seed)


def macro_estimate(sums: Sums, draws: np.ndarray, images: int) -> Estimate:
    """Mean over the cells of a breakdown, with the interval that the same draws give.

    Args:
        sums: The breakdown.
        draws: Its resampled means, shape (resamples, cells).
        images: Distinct images.
    """
    return estimate(float(macro(sums.means())), macro(draws), int(sums.rows.sum()), images)


def _columns(questions: Sequence[Question], option_order: int | None) -> Asked:
    import numpy as np

    positions = {question.question_id: row for row, question in enumerate(questions)}
    if len(positions) != len(questions):
        raise BadData(
            "a question id occurs twice", where=_first_doubled(question.question_id for question in questions)
        )
    varieties = [lookup(question.language) for question in questions]
    return Asked(
        positions=positions,
        gold=np.array([question.answer_index for question in questions]),
        options=np.array([len(question.options) for question in questions]),
        shown=_shown(questions, option_order),
        groups=np.unique([question.group for question in questions], return_inverse=True)[1],
        partitions=_partitions(questions, varieties),
    )


def _shown(questions: Sequence[Question], option_order: int | None) -> np.ndarray:
    """Position that each of the dataset's options was shown at, shape (questions, most options)."""
    import numpy as np

    shown = np.tile(np.arange(max(len(question.options) for question in questions)), (len(questions), 1))
    if option_order is not None:
        for row, question in enumerate(questions):
            order = shown_order(option_order, question.question_id, len(question.options))
            shown[row, list(order)] = range(len(order))
    return shown


def _partitions(questions: Sequence[Question], varieties: Sequence[Variety]) -> dict[str, Partition]:
    columns = {
        VARIETY: [variety.code for variety in varieties],
        "language": [variety.language.code for variety in varieties],
        "joshi": [str(variety.language.joshi) for variety in varieties],
        "script": [variety.script for variety in varieties],
        "category": [question.category for question in questions],
        "prompt_type": [question.prompt_type for question in questions],
        PAIR: [str(question.extra.get(PAIR) or "") for question in questions],
    }
    return {name: partition([label or UNNAMED for label in labels]) for name, labels in columns.items() if any(labels)}


def _score_setting(
    asked: Asked, setting: str, answers: Sequence[Answer], right: np.ndarray, images: str, resamples: int, seed: int
) -> SettingScores:
    """Score one setting and set `right`, shape (rows,), where its answers are."""
    import numpy as np

    models = sorted({answer.model for answer in answers})
    if len(models) > 1:
        raise BadData(f"answers of {len(models)} models: {', '.join(models)}", where=setting)
    rows = _rows(asked, setting, answers)
    valid = np.array([answer.status is Status.OK for answer in answers], dtype=bool)
    choices = _choices(asked, rows, answers)
    right[rows] = valid & (choices == asked.gold[rows])
    invalid = {status.value: 0 for status in Status if status is not Status.OK}
    for answer in answers:
        if answer.status is not Status.OK:
            invalid[answer.status.value] += 1
    invalid[Status.ERROR.value] += asked.n - len(answers)
    parts = {ALL: everything(asked.n), **asked.partitions}
    sums = {name: group_sums(right, asked.groups, cells) for name, cells in parts.items()}
    draws = resampled_means(sums, resamples=resamples, seed=seed)
    equals = PAIR if PAIR in sums else VARIETY
    times = np.array([answer.latency_ms for answer in answers if answer.latency_ms > 0])
    p50, p95 = np.percentile(times, [50, 95]) if len(times) else (0.0, 0.0)
    return SettingScores(
        setting=setting,
        model=models[0] if models else "",
        images=images,
        n=asked.n,
        accuracy=sums[ALL].estimates(draws[ALL])[ALL],
        macro=macro_estimate(sums[equals], draws[equals], asked.images),
        invalid=invalid,
        invalid_rate=wilson_estimate(sum(invalid.values()), asked.n, asked.images),
        breakdowns={name: sums[name].estimates(draws[name]) if name in sums else {} for name in DIMENSIONS},
        latency_p50_ms=float(p50),
        latency_p95_ms=float(p95),
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        completion_tokens=sum(answer.completion_tokens for answer in answers),
        positions=positions(
            asked.shown[rows, choices][valid],
            asked.gold_shown[rows][valid],
            asked.groups[rows][valid],
            int(asked.options.max()),
        ),
    )


def _rows(asked: Asked, setting: str, answers: Sequence[Answer]) -> np.ndarray:
    """Row of the question that each answer belongs to."""
    import numpy as np

    ids = [answer.question_id for answer in answers]
    rows = np.array([asked.positions.get(name, -1) for name in ids])
    if (rows < 0).any():
        unknown = ids[int((rows < 0).argmax())]
        raise BadData(f"an answer in {setting} belongs to no question", where=unknown)
    if len(np.unique(rows)) != len(rows):
        raise BadData(f"answered twice in {setting}", where=_first_doubled(ids))
    return rows


def _choices(asked: Asked, rows: np.ndarray, answers: Sequence[Answer]) -> np.ndarray:
    """Option chosen by each answer, -1 where its status is not ok."""
    import numpy as np

    choices = np.array([-1 if answer.choice is None else answer.choice for answer in answers])
    valid = np.array([answer.status is Status.OK for answer in answers])
    broken = valid & ((choices < 0) | (choices >= asked.options[rows]))
    if broken.any():
        answer = answers[int(broken.argmax())]
        raise BadData(
            f"status ok with choice {answer.choice}, which is not an option",
            where=f"{answer.setting} {answer.question_id}",
        )
    return choices


def _text_only(settings: Sequence[SettingScores]) -> Estimate | None:
    """Accuracy without images and without context, if a setting measured it."""
    blind = {setting.setting: setting.accuracy for setting in settings if setting.images == "none"}
    return blind.get(TEXT_ONLY) or blind.get(NO_RAG)


def _first_doubled(ids: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            return name
        seen.add(name)
    return ""


__all__ = [
    "DIMENSIONS",
    "Estimate",
    "Scores",
    "SettingScores",
    "context_effects",
    "everything",
    "macro_estimate",
    "majority_baseline",
    "random_baseline",
    "score",
]
