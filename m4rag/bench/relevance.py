"""Does judged relevance decide what context does to an answer?

Two rates, after M4-RAG: correctness retention, P(right with context | right without), and correction,
P(right with context | wrong without), both against the mean relevance that a judge gave the passages shown. Without
is the setting `no_rag`, question by question. For any set of questions

    accuracy with context = retention x accuracy without + correction x (1 - accuracy without).

What context changes is the difference of both accuracies, tested question by question. All intervals are 95 % and
take the image as their unit: questions that share one are not independent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from m4rag.bench.agreement import Coefficient, krippendorff_alpha
from m4rag.bench.contexts import NO_RAG, has_context
from m4rag.bench.joined import (
    answers_by_setting,
    document_names,
    read_computed,
    read_folder_table,
    remedy_for,
    right,
    shown_ids,
    shown_passages,
)
from m4rag.bench.judgements import JUDGEMENTS, Aggregate, PairKey, Sampling, Verdict, aggregate, read_verdicts
from m4rag.bench.paired import Difference, paired_differences
from m4rag.bench.rates import Rates, kept_and_mended
from m4rag.bench.runs import ModelIdentity, RunPlan
from m4rag.bench.statistics import (
    ALL,
    RESAMPLES,
    Estimate,
    Partition,
    Sums,
    estimate,
    everything,
    resampled_means,
)
from m4rag.errors import BadData
from m4rag.manifests import MANIFEST, Manifest, write_atomic
from m4rag.schema import Question, Status

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

RELEVANCE = "relevance.json"
POOLED = "all settings"
EDGES = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
"""Bins of mean relevance: closed below, open above, but for the last one, which holds the 5 too."""
LOW, HIGH = 2.0, 4.0
MINIMUM = 5
"""A rate over fewer questions is not given."""


class Bin(BaseModel):
    """The questions whose passages were judged in one range of mean relevance.

    Attributes:
        label: The range in words, e.g. `1.5–2`.
        low: Its lower end.
        high: Its upper end.
        n: Questions in it (a question counts once in each setting).
        retention: Share of those right without context that are right with it, None if too few were.
        correction: Share of those wrong without context that are right with it, None if too few were.
        effect: Accuracy with context minus without, p adjusted over the ranges; None without `no_rag` and for too few
            questions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    low: float
    high: float
    n: int
    retention: Estimate | None
    correction: Estimate | None
    effect: Difference | None


class SettingRelevance(BaseModel):
    """What judged relevance does in one setting, or in all of them together.

    Attributes:
        setting: Setting name, or `POOLED`.
        n: Questions with a judged passage (once in each setting).
        unjudged: Questions without one.
        mean: Mean over the questions of their mean relevance.
        before: Share of these questions that are right without context, None if the run has no `no_rag`.
        after: Share that is right with it.
        overall: Both rates over all of these questions.
        bins: Both rates by `EDGES`.
        summary: Both rates below `LOW`, from `LOW` to `HIGH`, and above `HIGH`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    setting: str
    n: int
    unjudged: int
    mean: float
    before: float | None
    after: float
    overall: Bin
    bins: tuple[Bin, ...]
    summary: tuple[Bin, ...]


COIN = 0.5
"""AUC of scores drawn by lot."""


class Auc(BaseModel):
    """Probability that a judge scores a gold passage above another one, ties counted half; 0.5 is a coin.

    Attributes:
        value: The area under the ROC curve, 0 to 1.
        low: Lower end of its 95 % interval, bootstrapped over images.
        high: Upper end.
        gold: Gold passages.
        other: Other passages.
        groups: Images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float
    high: float
    gold: int
    other: int
    groups: int


class Consistency(BaseModel):
    """How far several judgements of the same passage by the same judge agree.

    Attributes:
        samples: Judgements of each passage; its score is their median.
        temperature: At which they were drawn.
        agreement: Krippendorff's alpha of the samples.
        unanimous: Percentage of the passages with several scores whose scores are all alike.
        spread: Mean distance of two scores of one passage, 0 to 4.
        failed: Samples without a score.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int
    temperature: float
    agreement: Coefficient
    unanimous: float
    spread: float
    failed: int

    @property
    def words(self) -> str:
        """In one sentence."""
        return (
            f"Each passage was judged {self.samples} times at temperature {self.temperature:g}, and its score is the "
            f"median: all scores alike for {self.unanimous:.0f} % of the passages, two scores {self.spread:.2f} apart "
            f"on average, Krippendorff's alpha {self.agreement.words}."
        )


class Relevance(BaseModel):
    """Judged relevance of a run.

    Attributes:
        judge: Which model judged.
        with_answer: Whether it was told the right answers.
        prompts_digest: Digest of the judge's prompt.
        judgements: Digest of the judgements that this was computed from.
        pairs: Questions with passages judged.
        failed: Status to number of pairs, for those without a score.
        consistency: How far the judge agrees with itself, None where each passage was judged once.
        auc: How well the scores tell gold passages, None if all passages are gold or none is.
        settings: One entry for each setting with judged passages, in the order of the plan.
        pooled: All settings together, None if there is one only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: ModelIdentity
    with_answer: bool
    prompts_digest: str
    judgements: str
    pairs: int
    failed: dict[str, int]
    consistency: Consistency | None = None
    auc: Auc | None
    settings: tuple[SettingRelevance, ...]
    pooled: SettingRelevance | None

    @property
    def whole(self) -> SettingRelevance | None:
        """All settings together, or the only one; None if no passage has a score."""
        return self.pooled or next(iter(self.settings), None)

    @property
    def doubt(self) -> str | None:
        """Why nothing can be concluded from these scores, None if nothing speaks against them."""
        if self.judge.note is not None:
            return self.judge.note
        if self.auc is None or self.auc.low > COIN:
            return None
        return (
            f"{self.judge.name} does not tell gold passages from others better than a coin "
            f"(AUC {self.auc.value:.2f} [{self.auc.low:.2f}, {self.auc.high:.2f}])."
        )


@dataclass(frozen=True)
class Observed:
    """Questions with judged passages as columns, one row for each question and setting.

    Attributes:
        relevance: Mean score of the passages shown, 1 to 5, shape (rows,).
        before: Right without context, shape (rows,); None if it was not measured.
        after: Right with context, shape (rows,).
        questions: Number of the question, shape (rows,).
        groups: Number of its image, shape (rows,).
    """

    relevance: np.ndarray
    before: np.ndarray | None
    after: np.ndarray
    questions: np.ndarray
    groups: np.ndarray

    def only(self, mask: np.ndarray) -> Observed:
        """The rows where the mask, shape (rows,), is true."""
        before = None if self.before is None else self.before[mask]
        return Observed(self.relevance[mask], before, self.after[mask], self.questions[mask], self.groups[mask])


def by_relevance(setting: str, rows: Observed, unjudged: int = 0) -> SettingRelevance:
    """Both rates of a setting, over all its questions and by their relevance.

    Args:
        setting: Its name.
        rows: Its judged questions, at least one.
        unjudged: How many further questions have no judged passage.
    """
    import numpy as np

    parts = {
        ALL: everything(len(rows.relevance)),
        "bins": Partition(
            tuple(f"{low:g}–{high:g}" for low, high in pairwise(EDGES)), np.digitize(rows.relevance, EDGES[1:-1])
        ),
        "summary": Partition(
            (f"below {LOW:g}", f"{LOW:g}–{HIGH:g}", f"above {HIGH:g}"),
            np.where(rows.relevance < LOW, 0, np.where(rows.relevance <= HIGH, 1, 2)),
        ),
    }
    ends = {ALL: EDGES[:: len(EDGES) - 1], "bins": EDGES, "summary": (EDGES[0], LOW, HIGH, EDGES[-1])}
    found = {name: _bins(rows, cells, ends[name], 1 if name == ALL else MINIMUM) for name, cells in parts.items()}
    return SettingRelevance(
        setting=setting,
        n=len(rows.relevance),
        unjudged=unjudged,
        mean=float(rows.relevance.mean()),
        before=None if rows.before is None else 100 * float(rows.before.mean()),
        after=100 * float(rows.after.mean()),
        overall=found[ALL][0],
        bins=found["bins"],
        summary=found["summary"],
    )


def _bins(rows: Observed, cells: Partition, ends: Sequence[float], minimum: int) -> tuple[Bin, ...]:
    """One bin for each cell of a partition by relevance, with rates over at least `minimum` different questions."""
    import numpy as np

    rates: dict[str, Rates] = {}
    effects: dict[str, Difference] = {}
    if rows.before is not None:
        images = np.unique(rows.groups, return_inverse=True)[1]
        rates = kept_and_mended(rows.before, rows.after, images, cells)
        effects = paired_differences(rows.before, rows.after, images, {ALL: cells})[0][ALL]
    bins = []
    for code, (label, (low, high)) in enumerate(zip(cells.labels, pairwise(ends), strict=True)):
        inside = cells.codes == code
        given = Bin(label=label, low=low, high=high, n=int(inside.sum()), retention=None, correction=None, effect=None)
        if rows.before is not None and label in effects:
            right, wrong = (_different(rows, inside & among) >= minimum for among in (rows.before, ~rows.before))
            given = given.model_copy(
                update={
                    "retention": rates[label].retention if right else None,
                    "correction": rates[label].correction if wrong else None,
                    "effect": effects[label] if _different(rows, inside) >= minimum else None,
                }
            )
        bins.append(given)
    return tuple(bins)


def _different(rows: Observed, among: np.ndarray) -> int:
    """How many different questions there are; one counts in each setting that shows it a passage."""
    import numpy as np

    return len(np.unique(rows.questions[among]))


def auc(
    scores: np.ndarray, gold: np.ndarray, groups: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Auc | None:
    """How well scores tell gold passages from others: the Mann-Whitney statistic with an interval over images.

    Args:
        scores: Score of each passage, shape (rows,).
        gold: Whether it is gold, shape (rows,).
        groups: Image of its question as a number from 0, shape (rows,).
        resamples: Bootstrap resamples; each draws images with all their passages.
        seed: Seed of the bootstrap.

    Returns:
        The estimate; None unless there are passages of both kinds.
    """
    import numpy as np

    if gold.all() or not gold.any():
        return None
    values, codes = np.unique(scores, return_inverse=True)
    cells = Partition(tuple(str(value) for value in values), codes)
    parts = {"gold": _distribution(cells, groups, gold), "other": _distribution(cells, groups, ~gold)}
    value = float(_above(parts["gold"].means(), parts["other"].means()))
    draws = resampled_means(parts, resamples=resamples, seed=seed)
    images = len(np.unique(groups))
    found = estimate(value, _above(draws["gold"], draws["other"]), len(scores), images)
    gold_count = int(gold.sum())
    return Auc(
        value=value,
        low=found.low / 100,
        high=found.high / 100,
        gold=gold_count,
        other=len(gold) - gold_count,
        groups=images,
    )


def _distribution(cells: Partition, groups: np.ndarray, among: np.ndarray) -> Sums:
    """How many of the passages `among` have each score, image by image; the means are a distribution over scores."""
    import numpy as np

    shape = (int(groups.max()) + 1, len(cells.labels))
    flat = groups[among].astype(np.int64) * shape[1] + cells.codes[among]
    counts = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    return Sums(cells.labels, counts, np.broadcast_to(counts.sum(axis=1, keepdims=True), shape))


def _above(gold: np.ndarray, other: np.ndarray) -> np.ndarray:
    """P(gold > other) + P(equal) / 2 of two distributions over rising scores, shape (..., scores)."""
    import numpy as np

    area: np.ndarray = (gold * (np.cumsum(other, axis=-1) - other / 2)).sum(axis=-1)
    return area


def write_relevance(folder: Path) -> Relevance | None:
    """Compute a run's relevance from its judgements and write `relevance.json`.

    Returns:
        What was written; None if the run is not judged, and then there is no such file either.

    Raises:
        BadData: The run is incomplete, or its judgements are of other answers.
    """
    if not (folder / JUDGEMENTS / MANIFEST).exists():
        (folder / RELEVANCE).unlink(missing_ok=True)
        return None
    relevance = measure(folder)
    write_atomic(folder / RELEVANCE, relevance.model_dump_json(indent=2).encode() + b"\n")
    return relevance


def read_relevance(folder: Path) -> Relevance | None:
    """A run's relevance, None if it is not judged.

    Raises:
        BadData: The file is missing, damaged, or of other judgements than the folder's.
    """
    if not (folder / JUDGEMENTS / MANIFEST).exists():
        return None
    relevance = read_computed(folder / RELEVANCE, Relevance, "the judgements are not summed up")
    if relevance.judgements != Manifest.read(folder / JUDGEMENTS).digest:
        raise BadData("computed from other judgements", where=str(folder / RELEVANCE), remedy=remedy_for(folder))
    return relevance


def measure(folder: Path) -> Relevance:
    """Join a run's judgements with its answers.

    Raises:
        BadData: The run is incomplete, or its judgements are of other answers.
    """
    plan = RunPlan.read(folder)
    manifest = Manifest.read(folder / JUDGEMENTS)
    if manifest.inputs.get("answers") != Manifest.read(folder / "answers").digest:
        remedy = f"Run `m4rag bench judge {folder}`."
        raise BadData("these judgements are of other answers", where=str(folder / JUDGEMENTS), remedy=remedy)
    questions = read_folder_table(folder / "questions", Question)
    answers = answers_by_setting(folder, plan, questions)
    verdicts = read_verdicts(folder)
    scores = {key: verdict.score for key, verdict in verdicts.items() if verdict.score is not None}
    observed = observe(questions, answers, scores)
    passages = shown_passages(folder, answers.values())
    statuses = Counter(verdict.status for verdict in verdicts.values())
    return Relevance(
        judge=ModelIdentity.model_validate(manifest.config["judge"]),
        with_answer=manifest.config["with_answer"],
        prompts_digest=manifest.config["prompts"],
        judgements=manifest.digest,
        pairs=len(verdicts),
        failed={status.value: count for status, count in sorted(statuses.items()) if status is not Status.OK},
        consistency=_consistency(questions, passages, verdicts, Sampling.of(manifest)),
        auc=_judge_auc(questions, passages, scores),
        settings=tuple(
            by_relevance(setting, rows, questions.num_rows - len(rows.relevance)) for setting, rows in observed.items()
        ),
        pooled=_pooled(observed.values(), questions.num_rows) if len(observed) > 1 else None,
    )


def observe(
    questions: pa.Table, answers: dict[str, pa.Table], scores: dict[tuple[str, str], int]
) -> dict[str, Observed]:
    """The judged questions of each setting that shows passages, beside their answers without context.

    Args:
        questions: All questions.
        answers: Setting to its answers, in the order of the questions.
        scores: Score by question id and chunk id.

    Returns:
        Setting to its rows; settings without a judged passage are left out.
    """
    import numpy as np

    groups = np.unique(questions["group"].to_pylist(), return_inverse=True)[1]
    without = np.array(right(answers[NO_RAG], questions)) if NO_RAG in answers else None
    observed = {}
    for setting, given in answers.items():
        judged = aggregates(questions, given, scores) if has_context(setting) else []
        positions = np.array([position for position, found in enumerate(judged) if found is not None], dtype=int)
        if len(positions):
            observed[setting] = Observed(
                relevance=np.array([found.mean for found in judged if found is not None]),
                before=None if without is None else without[positions],
                after=np.array(right(given, questions))[positions],
                questions=positions,
                groups=groups[positions],
            )
    return observed


def aggregates(questions: pa.Table, answers: pa.Table, scores: dict[tuple[str, str], int]) -> list[Aggregate | None]:
    """Judged relevance of what each question's model saw in one setting, in the order of the questions."""
    ids = questions["question_id"].to_pylist()
    return [aggregate(question, shown, scores) for question, shown in zip(ids, shown_ids(answers), strict=True)]


def _pooled(observed: Iterable[Observed], questions: int) -> SettingRelevance:
    import numpy as np

    rows = list(observed)

    def joined(columns: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(columns)

    before = [part.before for part in rows if part.before is not None]
    pooled = Observed(
        relevance=joined([part.relevance for part in rows]),
        before=joined(before) if before else None,
        after=joined([part.after for part in rows]),
        questions=joined([part.questions for part in rows]),
        groups=joined([part.groups for part in rows]),
    )
    return by_relevance(POOLED, pooled, len(rows) * questions - len(pooled.relevance))


def _consistency(
    questions: pa.Table, passages: pa.Table, verdicts: Mapping[PairKey, Verdict], sampling: Sampling
) -> Consistency | None:
    """Agreement of the samples of each pair, the same text with a question once."""
    import numpy as np

    if sampling.samples == 1:
        return None
    texts = dict(zip(passages["chunk_id"].to_pylist(), passages["text"].to_pylist(), strict=True))
    group_of = dict(zip(questions["question_id"].to_pylist(), questions["group"].to_pylist(), strict=True))
    judged = {(question, texts[chunk]): verdict for (question, chunk), verdict in verdicts.items()}
    counts = [len(verdict.scores) for verdict in judged.values()]
    scores = np.array([score for verdict in judged.values() for score in verdict.scores], dtype=int)
    units = np.repeat(np.arange(len(judged)), counts)
    groups = np.repeat(np.unique([group_of[question] for question, _ in judged], return_inverse=True)[1], counts)
    several = [verdict.scores for verdict in judged.values() if len(verdict.scores) > 1]
    distances = [abs(one - two) for given in several for one, two in combinations(given, 2)]
    return Consistency(
        samples=sampling.samples,
        temperature=sampling.temperature,
        agreement=krippendorff_alpha(scores, units, groups),
        unanimous=100 * float(np.mean([len(set(given)) == 1 for given in several])) if several else 0.0,
        spread=float(np.mean(distances)) if distances else 0.0,
        failed=sampling.samples * len(judged) - len(scores),
    )


def _judge_auc(questions: pa.Table, passages: pa.Table, scores: dict[tuple[str, str], int]) -> Auc | None:
    """The AUC over every question and passage that has a score, the same text with a question once."""
    import numpy as np

    names = document_names(passages)
    texts = dict(zip(passages["chunk_id"].to_pylist(), passages["text"].to_pylist(), strict=True))
    golds = dict(zip(questions["question_id"].to_pylist(), questions["gold"].to_pylist(), strict=True))
    group_of = dict(zip(questions["question_id"].to_pylist(), questions["group"].to_pylist(), strict=True))
    seen: dict[tuple[str, str], tuple[int, bool]] = {}
    for (question, chunk), score in scores.items():
        gold = not names[chunk].isdisjoint(golds[question])
        key = question, texts[chunk]
        seen[key] = score, gold or (key in seen and seen[key][1])
    if not any(golds.values()) or not seen:
        return None
    groups = np.unique([group_of[question] for question, _ in seen], return_inverse=True)[1]
    return auc(np.array([score for score, _ in seen.values()]), np.array([gold for _, gold in seen.values()]), groups)
