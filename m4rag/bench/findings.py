"""What a run shows, in plain words: the headline of the report and of the MLflow page.

It claims a difference only where the paired test and the interval of the difference say so (`Difference.clear`). The
words for the other case are "no clear difference", never "no difference".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from m4rag.bench.contexts import (
    CAPTION_QUERY,
    IRRELEVANT,
    MULTIMODAL,
    NO_RAG,
    ORACLE,
    ORACLE_QUERY,
    TEXT_ONLY,
    retrieves,
)
from m4rag.bench.relevance import Bin, Relevance
from m4rag.bench.runs import RunPlan
from m4rag.bench.scoring import Estimate, Scores, SettingScores
from m4rag.bench.statistics import gap

TEXT_ONLY_LABEL = "Text-only baseline"


@dataclass(frozen=True)
class Finding:
    """The headline and the sentence that supports it."""

    headline: str
    support: str


def what_it_is(setting: str, images: str) -> str:
    """What is put before the model in a setting, as a noun phrase.

    Args:
        setting: The setting.
        images: `all` or `none`, as in the plan.
    """
    seen = "question and image" if images == "all" else "question"
    if setting.startswith(MULTIMODAL):
        return f"{seen}, with passages found by {setting.removeprefix(MULTIMODAL)} from question and image"
    return {
        TEXT_ONLY: "question alone: no image, no passages",
        NO_RAG: f"{seen}, no passages",
        ORACLE: f"{seen}, with the gold document itself",
        IRRELEVANT: f"{seen}, with the gold document of another question",
        ORACLE_QUERY: f"{seen}, with passages found by question and gold text: the ceiling of text retrieval",
        CAPTION_QUERY: f"{seen}, with passages found by question and the model's own caption",
    }[setting]


def finding(plan: RunPlan, scores: Scores) -> Finding:
    """Whether retrieval helped, as far as the paired comparison allows to say."""
    if plan.model.note is not None:
        return Finding(
            "These numbers say nothing about a model's quality",
            "Every part of the benchmark ran, and the warning says why nothing can be concluded from the result.",
        )
    found = _retrieval(scores)
    if plan.images == "none":
        return Finding(f"{TEXT_ONLY_LABEL}: {found.headline[0].lower()}{found.headline[1:]}", found.support)
    return found


def _retrieval(scores: Scores) -> Finding:
    by_name = {setting.setting: setting for setting in scores.settings}
    searching = [setting for setting in scores.settings if retrieves(setting.setting)]
    best = max(scores.settings, key=lambda setting: setting.accuracy.value)
    if NO_RAG not in by_name or not searching:
        return Finding(
            f"{_percent(best.accuracy)} of the answers are right in {best.setting}",
            "This run does not compare retrieval with no retrieval"
            f" ({'no_rag is' if NO_RAG not in by_name else 'a setting that searches is'} missing).",
        )
    best = max(searching, key=lambda setting: setting.accuracy.value)
    support = (
        f"{_percent(best.accuracy)} right with {best.setting} ({_interval(best)}) against "
        f"{_percent(by_name[NO_RAG].accuracy)} without retrieval ({_interval(by_name[NO_RAG])})"
    )
    if best.effect is None:
        remedy = "These scores were written before runs were compared question by question: score the run again."
        return Finding("Whether retrieval helps this model is not computed", f"{support}. {remedy}")
    support = f"{support}, a difference of {best.effect.words}."
    if not best.effect.clear:
        doubt = "These questions are too few or the effect too small to tell."
        return Finding("Retrieval makes no clear difference for this model", f"{support} {doubt}")
    return Finding(f"Retrieval {'helps' if best.effect.value > 0 else 'hurts'} this model", support)


def relevance_finding(plan: RunPlan, relevance: Relevance) -> str:
    """Whether judged relevance goes with right answers, in one sentence that the intervals support."""
    for who, note in (("judge", relevance.doubt), ("model under test", plan.model.note)):
        if note is not None:
            return f"Nothing can be concluded from this section; about the {who}: {note}"
    whole = relevance.whole
    if whole is None:
        return "The judge gave no passage a score that could be read."
    if whole.before is None:
        return f"This run has no answers without context to compare with ({NO_RAG} is missing)."
    changes = [change for rate in ("retention", "correction") if (change := _change(rate, whole.summary)) is not None]
    if not changes:
        return "It cannot be told: no rate has enough questions at two different levels of relevance."
    rising = sum(change.verb == "rises" for change in changes)
    verdict = "Yes" if rising == 2 else "In part" if rising else "Not clearly"
    return f"{verdict}: {'; '.join(change.words for change in changes)}."


@dataclass(frozen=True)
class _Change:
    """What a rate does from the least to the most relevant passages; `goes` where its difference may be 0."""

    verb: str
    words: str


def _change(rate: str, bins: Sequence[Bin]) -> _Change | None:
    """How a rate changes over relevance, None where only one range has enough questions."""
    given = [(part.label, found) for part in bins if (found := getattr(part, rate)) is not None]
    if len(given) < 2:
        return None
    (worst, low), (best, high) = given[0], given[-1]
    value, at_least, at_most = gap(low, high)
    verb = "rises" if at_least > 0 else "falls" if at_most < 0 else "goes"
    ends = f"{_percent(low)} (relevance {worst}, {low.n} answers) to {_percent(high)} ({best}, {high.n} answers)"
    change = f"{value:+.1f} [{at_least:+.1f}, {at_most:+.1f}] points"
    return _Change(verb, f"{rate} {verb} from {ends}: {change}")


def _percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1f} %"


def _interval(setting: SettingScores) -> str:
    return f"{setting.accuracy.low:.1f} to {setting.accuracy.high:.1f}"


def describe(plan: RunPlan, scores: Scores, relevance: Relevance | None, policies: Mapping[str, str]) -> str:
    """The run in Markdown, for the page that MLflow shows.

    Args:
        plan: The run's plan.
        scores: Its scores.
        relevance: Its judged relevance, None if it was not judged.
        policies: Setting to what the policy fitted on it says.
    """
    found = finding(plan, scores)
    rows = [
        f"| {setting.setting} | {setting.accuracy.value:.2f} | {setting.accuracy.low:.2f} to "
        f"{setting.accuracy.high:.2f} | {setting.macro.value:.2f} | {sum(setting.invalid.values())} |"
        for setting in scores.settings
    ]
    rows += [
        f"| baseline: {name} | {estimate.value:.2f} | | | |" for name, estimate in scores.baselines.items() if estimate
    ]
    return "\n".join(
        [
            f"**{found.headline}.** {found.support}",
            "",
            *([f"**Warning:** {plan.model.note}", ""] if plan.model.note is not None else []),
            f"{scores.questions} questions of {plan.dataset}, model {plan.model.name}.",
            *(["", f"**Does relevance decide?** {relevance_finding(plan, relevance)}"] if relevance else []),
            *(line for setting, words in policies.items() for line in ("", f"**When to use {setting}:** {words}")),
            "",
            "| setting | accuracy % | 95 % interval | macro % | invalid |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "The whole report is the artifact `report.html`; every row is under `tables/`.",
        ]
    )
