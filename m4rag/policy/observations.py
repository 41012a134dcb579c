"""A run as a policy sees it: each question answered without and with retrieval, and the signals that were there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag.bench.contexts import NO_RAG, needs_gold, retrieves
from m4rag.bench.joined import answers_by_setting, read_folder_table, right
from m4rag.bench.judgements import JUDGEMENTS, Sampling, read_scores
from m4rag.bench.relevance import aggregates
from m4rag.bench.runs import RunPlan
from m4rag.errors import BadData, UsageError
from m4rag.languages import lookup
from m4rag.manifests import MANIFEST, Manifest, short
from m4rag.policy.gates import Rows
from m4rag.policy.model import JUDGE, Signal, score_signals
from m4rag.schema import Question

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class NothingToLearn(BadData):
    """A sound run that can't teach a policy."""


@dataclass(frozen=True)
class Observations:
    """One setting of a run beside its answers without retrieval, one row a question.

    Attributes:
        plan: The run's plan.
        setting: The setting that retrieves.
        before: Right without retrieval, shape (rows,).
        after: Right with it, shape (rows,).
        groups: Image of each question as a number from 0, shape (rows,).
        joshi: Resource class of its language, `0` to `5`.
        signals: Signal to its values, shape (rows,); NaN where a question has none.
        unavailable: The other signals, with the reason.
        judge: Name of the judge, None unless the signal `judge` is there.
        context_language: Language of the passages.
        inputs: Digests of what was read.
        notes: Warnings about the model and the judge.
    """

    plan: RunPlan
    setting: str
    before: np.ndarray
    after: np.ndarray
    groups: np.ndarray
    joshi: list[str]
    signals: Mapping[Signal, np.ndarray]
    unavailable: Mapping[Signal, str]
    judge: str | None
    context_language: str
    inputs: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def rows(self) -> Rows:
        """What a gate is fitted on."""
        return Rows(self.signals, self.after.astype(float) - self.before, self.groups)


def run_id(plan: RunPlan) -> str:
    """The name of a run: its dataset and the digest of its plan."""
    return f"{plan.dataset}-{short(plan.digest)}"


def served_settings(plan: RunPlan) -> list[str]:
    """The settings of a run that can be served: they search, and without the right answer."""
    return [setting for setting in plan.settings if retrieves(setting) and not needs_gold(setting)]


def observe(folder: Path, setting: str | None = None) -> Observations:
    """Read what a policy is learned from or tried on.

    Args:
        folder: A complete run.
        setting: The setting that retrieves. Default: the run's only one.

    Raises:
        UsageError: The run has no such setting, or it can't be served.
        NothingToLearn: The run lacks `no_rag`, or retrieved nothing.
        BadData: The run is incomplete.
    """
    import numpy as np

    plan = RunPlan.read(folder)
    setting = _setting(plan, setting, folder)
    if NO_RAG not in plan.settings:
        remedy = f"Run it with --setting {NO_RAG} too."
        raise NothingToLearn(f"this run has no {NO_RAG} to compare with", where=str(folder), remedy=remedy)
    questions = read_folder_table(folder / "questions", Question)
    answers = answers_by_setting(folder, plan, questions)
    given = answers[setting]
    signals = _score_columns(given)
    if not signals:
        raise NothingToLearn(f"no passage was retrieved in {setting}: there is no score to look at", where=str(folder))
    judged = _judged(folder, questions, given)
    if isinstance(judged, _Judged):
        signals[JUDGE] = judged.relevance
    inputs = {name: Manifest.read(folder / name).digest for name in ("questions", "answers")}
    languages = set(given["context_language"].to_pylist())
    return Observations(
        plan=plan,
        setting=setting,
        before=np.array(right(answers[NO_RAG], questions)),
        after=np.array(right(given, questions)),
        groups=np.unique(questions["group"].to_pylist(), return_inverse=True)[1],
        joshi=[str(lookup(code).language.joshi) for code in questions["language"].to_pylist()],
        signals=signals,
        unavailable={JUDGE: judged} if isinstance(judged, str) else {},
        judge=judged.name if isinstance(judged, _Judged) else None,
        context_language=languages.pop() if len(languages) == 1 else "mixed",
        inputs=inputs | ({"judgements": judged.digest} if isinstance(judged, _Judged) else {}),
        notes=_notes(plan, judged),
    )


def _setting(plan: RunPlan, setting: str | None, folder: Path) -> str:
    known = served_settings(plan)
    remedy = f"This run has {', '.join(known)}." if known else "Run caption_query or multimodal:<encoder>."
    if setting is None:
        if len(known) != 1:
            raise UsageError(
                f"{len(known)} settings of this run could be served: name one with --setting",
                where=str(folder),
                remedy=remedy,
            )
        return known[0]
    if setting not in plan.settings:
        raise UsageError(f"this run has no setting {setting!r}", where=str(folder), remedy=remedy)
    if setting not in known:
        why = "needs the right answer" if needs_gold(setting) else "searches nothing"
        raise UsageError(f"{setting} {why} and can't be served", where=str(folder), remedy=remedy)
    return setting


def _score_columns(answers: pa.Table) -> dict[Signal, np.ndarray]:
    """The signals that scores give; one that no question has is left out."""
    import numpy as np

    found = [score_signals([row["score"] for row in rows]) for rows in answers["retrieved"].to_pylist()]
    names: list[Signal] = list(found[0]) if found else []
    columns = {name: np.array([row[name] for row in found], dtype=float) for name in names}
    return {name: column for name, column in columns.items() if np.isfinite(column).any()}


@dataclass(frozen=True)
class _Judged:
    """A judge that did not know the right answers: its mean score of what each question was shown, shape (rows,).

    A single judgement and the median of several are different judges: a threshold for one is none for the other.
    """

    name: str
    note: str | None
    relevance: np.ndarray
    digest: str


def _judged(folder: Path, questions: pa.Table, answers: pa.Table) -> _Judged | str:
    """The judge's scores, or why they are no signal."""
    import numpy as np

    if not (folder / JUDGEMENTS / MANIFEST).exists():
        return "the run is not judged"
    manifest = Manifest.read(folder / JUDGEMENTS)
    if manifest.inputs.get("answers") != Manifest.read(folder / "answers").digest:
        return "the judgements are of other answers"
    if manifest.config["with_answer"]:
        return "the judge was told the right answers"
    found = aggregates(questions, answers, read_scores(folder))
    relevance = np.array([None if each is None else each.mean for each in found], dtype=float)
    if not np.isfinite(relevance).any():
        return "the judge gave no score that could be read"
    judge, samples = manifest.config["judge"], Sampling.of(manifest).samples
    name = judge["name"] if samples == 1 else f"{judge['name']} (median of {samples})"
    return _Judged(name, judge["note"], relevance, manifest.digest)


def _notes(plan: RunPlan, judged: _Judged | str) -> tuple[str, ...]:
    notes = [] if plan.model.note is None else [plan.model.note]
    if isinstance(judged, _Judged) and judged.note is not None:
        notes.append(f"The judge: {judged.note}")
    return tuple(notes)
