"""Which numbers of a run become MLflow metrics, and under which keys.

MLflow's search slows 28 times from 30 to 1,000 metrics a run and its pages freeze, so a run gets at most `LIMIT`
scalars: the ones that people compare runs by. A judged run gets up to `JUDGED_LIMIT` more, so that judging a recorded
run does not change which of the others it holds. Every number is in the tables beside them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from m4rag.bench.contexts import TEXT_ONLY
from m4rag.bench.relevance import Relevance
from m4rag.bench.scoring import Scores, SettingScores
from m4rag.errors import BadData
from m4rag.languages import LOW_RESOURCE

LIMIT = 60
JUDGED_LIMIT = 15
KEY_LENGTH = 250

Pairs = Iterable[tuple[str, float]]


@dataclass(frozen=True)
class Scalars:
    """The metrics of one run.

    Attributes:
        values: Key to value; accuracies and rates in percent, `judge_auc` from 0 to 1, relevance from 1 to 5, latencies
            in milliseconds, tokens as counts.
        left_out: Groups of numbers that did not fit; they are in the tables.
    """

    values: dict[str, float]
    left_out: tuple[str, ...]


def metric_key(*parts: str) -> str:
    """An MLflow metric key: the parts joined by `/`, which its pages group by.

    Letters and digits of any script, `_`, `-`, `.` and spaces stay; `@` becomes `_at_`, anything else `_`.

    Raises:
        BadData: A part is empty, or the key is longer than MLflow takes (250 characters).
    """
    cleaned = [re.sub(r"[^\w\-. ]", "_", part.replace("@", "_at_")).strip(" ") for part in parts]
    key = "/".join(cleaned)
    if any(part.strip(".") == "" for part in cleaned) or len(key) > KEY_LENGTH:
        raise BadData(f"no metric key can be made of {parts!r}", remedy="Shorten or rename the setting.")
    return key


def scalars(scores: Scores, gold_shown: Mapping[str, float], relevance: Relevance | None = None) -> Scalars:
    """The metrics of a run, in groups by importance; a group that does not fit whole is left out and named.

    Args:
        scores: The run's scores.
        gold_shown: Setting to percentage of questions whose gold document was among the passages shown.
        relevance: The run's judged relevance, None if it was not judged.

    Raises:
        BadData: A number is not finite, or two settings give the same key.
    """
    values, left_out = _fitting(_groups(scores, gold_shown), LIMIT)
    if relevance is not None:
        judged, judged_left_out = _fitting(_relevance(relevance), JUDGED_LIMIT)
        values, left_out = values | judged, left_out + judged_left_out
    return Scalars(values, tuple(left_out))


def _fitting(groups: Iterable[tuple[str, Pairs]], limit: int) -> tuple[dict[str, float], list[str]]:
    """The numbers of the groups that fit whole, and the names of those that do not."""
    values: dict[str, float] = {}
    left_out = []
    for name, pairs in groups:
        group = _checked(pairs, values)
        if len(values) + len(group) <= limit:
            values.update(group)
        else:
            left_out.append(name)
    return values, left_out


def _checked(pairs: Pairs, taken: Mapping[str, float]) -> dict[str, float]:
    group: dict[str, float] = {}
    for key, value in pairs:
        if not math.isfinite(value):
            raise BadData(f"{value} is not a number that can be recorded", where=key, remedy="Score the run again.")
        if key in group or key in taken:
            raise BadData("two numbers have this metric key", where=key, remedy="Rename one of the settings.")
        group[key] = float(value)
    return group


def _groups(scores: Scores, gold_shown: Mapping[str, float]) -> Iterable[tuple[str, Pairs]]:
    # The text-only baseline is a baseline: of it, only the numbers over all questions are kept.
    tested = [setting for setting in scores.settings if setting.setting != TEXT_ONLY]

    def each(settings: Iterable[SettingScores] = scores.settings, **numbers: Callable[[SettingScores], float]) -> Pairs:
        return [(metric_key(name, s.setting), number(s)) for s in settings for name, number in numbers.items()]

    def breakdown(dimension: str) -> Pairs:
        return [
            (metric_key(f"{dimension}_{name}", s.setting), estimate.value)
            for s in tested
            for name, estimate in s.breakdowns[dimension].items()
        ]

    baselines = ((name, estimate) for name, estimate in scores.baselines.items() if estimate is not None)
    yield "questions", [("questions", float(scores.questions))]
    yield "baselines", [(metric_key("baseline", name), estimate.value) for name, estimate in baselines]
    yield "accuracy", each(accuracy=lambda s: s.accuracy.value)
    yield "accuracy interval", each(accuracy_low=lambda s: s.accuracy.low, accuracy_high=lambda s: s.accuracy.high)
    yield "macro", each(macro=lambda s: s.macro.value)
    yield "invalid rate", each(invalid_rate=lambda s: s.invalid_rate.value)
    yield "Joshi class", breakdown("joshi")
    yield "low-resource languages", _low_resource(tested)
    yield "gold shown", [(metric_key("gold_shown", name), value) for name, value in gold_shown.items()]
    yield "worst language", each(tested, worst_language=_worst_language)
    yield "latency", each(latency_p50_ms=lambda s: s.latency_p50_ms, latency_p95_ms=lambda s: s.latency_p95_ms)
    yield "macro interval", each(macro_low=lambda s: s.macro.low, macro_high=lambda s: s.macro.high)
    yield "tokens", each(prompt_tokens=lambda s: s.prompt_tokens, completion_tokens=lambda s: s.completion_tokens)
    yield (
        "invalid by kind",
        [
            (metric_key(f"invalid_{kind}", s.setting), float(count))
            for s in scores.settings
            for kind, count in s.invalid.items()
        ],
    )
    yield "script", breakdown("script")


def _relevance(relevance: Relevance) -> Iterable[tuple[str, Pairs]]:
    """How good the judge is, both rates of all settings together at three levels of relevance, and the levels."""
    if relevance.auc is not None:
        yield "judge", [("judge_auc", relevance.auc.value)]
    if relevance.whole is not None:
        yield (
            "retention and correction",
            [
                (metric_key(f"{rate}_{part.label.replace(' ', '_')}"), estimate.value)
                for part in relevance.whole.summary
                for rate, estimate in (("retention", part.retention), ("correction", part.correction))
                if estimate is not None
            ],
        )
    yield "judged relevance", [(metric_key("judged_relevance", s.setting), s.mean) for s in relevance.settings]


def _low_resource(settings: Iterable[SettingScores]) -> Pairs:
    """Row mean over the questions in low-resource languages."""
    for setting in settings:
        classes = [e for name, e in setting.breakdowns["joshi"].items() if int(name) in LOW_RESOURCE]
        if questions := sum(e.n for e in classes):
            yield metric_key("low_resource", setting.setting), sum(e.value * e.n for e in classes) / questions


def _worst_language(setting: SettingScores) -> float:
    return min(estimate.value for estimate in setting.breakdowns["language"].values())
