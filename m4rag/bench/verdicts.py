"""What an analysis shows, in plain words that claim no more than the paired tests and the intervals do.

Three of the verdicts are the experiments to begin with for whoever adds retrieval to a model: how much it can give at
all (calibration), what the relevance of the context decides (relevance), and what the model's size does (scale).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from m4rag.bench.analysis import Analysis, LanguageChange, RunAnalysis, SettingEffect
from m4rag.bench.contexts import IRRELEVANT, NO_RAG, ORACLE
from m4rag.bench.paired import Difference
from m4rag.bench.relevance import HIGH, LOW, Bin
from m4rag.bench.scale import Scale, Trend
from m4rag.bench.statistics import Estimate

ROOM = 10.0
"""Points that the gold documents have to give before retrieval is said to have room to help.

M4-RAG's eleven models gain 24 to 45 points from them on CVQA, where retrieval helps nine of them, and 9 to 15 on
WorldCuisines, where it helps five.
"""
NAMED = 6
"""Most languages that a sentence lists."""

Topic = Literal["calibration", "retrieval", "relevance", "languages", "prompt", "scale"]
Says = Literal["helps", "hurts", "room", "little", "something", "mixed", "rises", "falls", "unclear", "unknown"]


class Verdict(BaseModel):
    """One thing that runs show, or do not.

    Attributes:
        about: What it is about.
        says: The claim for machines. `unclear`: measured, and chance may explain it; `unknown`: not measured; `mixed`:
            helps some and hurts others; `rises`, `falls`: what a setting gives, with the size of the model.
        text: The claim for people, in one or two sentences.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: Topic
    says: Says
    text: str


def run_verdicts(run: RunAnalysis) -> list[Verdict]:
    """What one run shows: the ceiling, each setting, relevance, languages."""
    if run.note is not None:
        return [Verdict(about="calibration", says="unknown", text=f"Nothing can be concluded; {run.model}: {run.note}")]
    if not run.compared or not run.settings:
        missing = f"a setting with context beside {NO_RAG}" if run.compared else NO_RAG
        text = f"This run compares nothing: {missing} is missing."
        return [Verdict(about="calibration", says="unknown", text=text)]
    by_name = {setting.setting: setting for setting in run.settings}
    return [
        calibration(by_name.get(ORACLE)),
        *(retrieval(setting) for name, setting in by_name.items() if name != ORACLE),
        relevance(run),
        *(found for setting in run.settings if (found := languages(setting)) is not None),
    ]


def joint_verdicts(analysis: Analysis) -> list[Verdict]:
    """What several runs show together: another language of instructions or context, and scale."""
    notes = {run.model: run.note for run in analysis.runs if run.note is not None}
    changes = [prompt(change) for change in analysis.languages if change.model not in notes]
    return [*changes, *scale(analysis.scale)]


def calibration(oracle: SettingEffect | None) -> Verdict:
    """How much retrieval can give at most: what the gold documents themselves give.

    Args:
        oracle: The effect of `oracle`, None if the run does not have it.
    """
    if oracle is None:
        text = f"How much retrieval can give at most is not known: {ORACLE} is missing."
        return Verdict(about="calibration", says="unknown", text=text)
    effect = oracle.effect
    says: Says
    if effect.clear and effect.value < 0:
        says, words = "hurts", "the gold document itself hurts this model"
    elif effect.high < ROOM:
        says, words = "little", "retrieval has little to give here"
    elif not effect.clear:
        says, words = "unclear", "these questions cannot tell whether retrieval has anything to give"
    elif effect.low >= ROOM:
        says, words = "room", "retrieval has room to help"
    else:
        says = "something"
        words = f"retrieval has something to give, but these questions cannot tell whether {ROOM:g} points or more"
    return Verdict(about="calibration", says=says, text=f"{ORACLE} - {NO_RAG} = {effect.words}: {words}.")


def retrieval(setting: SettingEffect) -> Verdict:
    """What the context of one setting does to right and to wrong answers."""
    says, words = _claim(setting.effect)
    if setting.setting == IRRELEVANT:
        words = f"context that cannot help {words}" if says in ("helps", "hurts") else words
    parts = [f"{setting.setting} - {NO_RAG} = {setting.effect.words}: {words}."]
    if setting.retention is not None:
        parts.append(f"It keeps {_rate(setting.retention)} of the right answers")
    if setting.correction is not None:
        parts.append(f"{'and' if setting.retention else 'It'} mends {_rate(setting.correction)} of the wrong ones")
    text = " ".join(parts)
    return Verdict(about="retrieval", says=says, text=text if text.endswith(".") else f"{text}.")


def relevance(run: RunAnalysis) -> Verdict:
    """What context does whose judged relevance is below, between and above M4-RAG's two cuts."""

    def unknown(text: str) -> Verdict:
        return Verdict(about="relevance", says="unknown", text=text)

    judged = run.relevance
    if judged is None:
        return unknown("What relevance decides is not known: `m4rag bench judge` lets a model judge it.")
    if judged.doubt is not None:
        return unknown(f"What relevance decides cannot be concluded; about the judge: {judged.doubt}")
    bands = () if judged.whole is None else tuple(part for part in judged.whole.summary if part.effect is not None)
    if not bands:
        return unknown("What relevance decides is not known: no range of it has enough judged questions.")
    told = "; ".join(_band(part) for part in bands)
    directions = {part.label: _claim(part.effect)[0] for part in bands if part.effect is not None}
    says, conclusion = _cuts(directions.get(f"below {LOW:g}"), directions.get(f"above {HIGH:g}"))
    hindsight = " The judge knew the right answers, so this is no gate that could be served." * judged.with_answer
    return Verdict(about="relevance", says=says, text=f"Context judged {told}. {conclusion}{hindsight}")


def languages(setting: SettingEffect) -> Verdict | None:
    """Where a setting helps and where it hurts, None where all questions are in one variety."""
    varieties = setting.breakdowns["variety"]
    if len(varieties) < 2:
        return None
    helped, hurt = _among(varieties, 1), _among(varieties, -1)
    unclear = len(varieties) - len(helped) - len(hurt)
    text = (
        f"{setting.setting} helps in {_counted(helped)} of {len(varieties)} varieties and hurts in {_counted(hurt)}"
        + (f"; in {unclear} there is no clear difference." if unclear else ".")
    )
    classes = setting.breakdowns.get("joshi", {})
    if classes:
        helped_classes, hurt_classes = (_listed(_among(classes, sign)) for sign in (1, -1))
        text += f" By resource class it helps in {helped_classes} and hurts in {hurt_classes}."
    says: Says = "mixed" if helped and hurt else "helps" if helped else "hurts" if hurt else "unclear"
    return Verdict(about="languages", says=says, text=text)


def prompt(change: LanguageChange) -> Verdict:
    """What another language of the instructions or of the context does."""
    moved = [
        f"{what} in {after or 'none'} instead of {before or 'none'}"
        for what, (before, after) in (
            ("instructions", change.prompt_languages),
            ("context", change.context_languages),
        )
        if before != after
    ]
    effect = change.comparison.overall
    says, words = _claim(effect)
    text = f"{change.model}, {change.setting}, {' and '.join(moved)}: {effect.words}: {words}."
    return Verdict(about="prompt", says=says, text=text)


def scale(found: Scale) -> list[Verdict]:
    """What the size of the model does to each setting's effect, or why that is not known."""
    if not found.trends:
        return [Verdict(about="scale", says="unknown", text=found.reason)]
    return [_trend(trend) for trend in found.trends]


def _trend(trend: Trend) -> Verdict:
    smallest, largest = trend.points[0], trend.points[-1]
    ends = (
        f"{trend.setting} gives {smallest.model} ({smallest.size:g}B) {smallest.effect.words} and {largest.model} "
        f"({largest.size:g}B) {largest.effect.words}"
    )
    if trend.slope is None:
        return Verdict(about="scale", says="unknown", text=f"{ends}; no interval can be given for the trend.")
    slope = trend.slope
    per = f"{slope.value:+.1f} [{slope.low:+.1f}, {slope.high:+.1f}] points for each doubling of the size"
    says: Says
    if slope.low > 0:
        says, words = "rises", "the larger of these models gain more from it"
    elif slope.high < 0:
        says, words = "falls", "the larger of these models gain less from it"
    else:
        says, words = "unclear", "no clear trend"
    few = " Two models are a difference, not a trend." if len(trend.points) == 2 else ""
    return Verdict(about="scale", says=says, text=f"{ends}: {per}, {words}.{few}")


def _claim(effect: Difference) -> tuple[Literal["helps", "hurts", "unclear"], str]:
    if not effect.clear:
        return "unclear", "no clear difference"
    return ("helps", "helps") if effect.value > 0 else ("hurts", "hurts")


def _band(part: Bin) -> str:
    assert part.effect is not None  # noqa: S101 - the caller left out the others
    rates = [
        f"{name} {_rate(rate)}"
        for name, rate in (("keeps", part.retention), ("mends", part.correction))
        if rate is not None
    ]
    told = f" ({', '.join(rates)})" if rates else ""
    return f"{part.label}: {part.effect.words}{told}, {_claim(part.effect)[1]}"


def _cuts(below: str | None, above: str | None) -> tuple[Says, str]:
    """What follows for the two cuts from what context does below the lower one and above the upper one."""
    low = {
        "hurts": f"Leaving out context below {LOW:g} pays.",
        "helps": f"Leaving out context below {LOW:g} would cost right answers.",
        "unclear": f"Nothing shows that leaving out context below {LOW:g} pays.",
        None: f"Too little context was judged below {LOW:g} to say what leaving it out does.",
    }[below]
    high = {
        "helps": f"Showing context above {HIGH:g} pays.",
        "hurts": f"Even context above {HIGH:g} hurts.",
        "unclear": f"Nothing shows that context above {HIGH:g} helps.",
        None: f"Too little context was judged above {HIGH:g} to say what showing it does.",
    }[above]
    directions = {below, above}
    says: Says = "unclear"
    if directions == {"helps", "hurts"}:
        says = "mixed"
    elif "helps" in directions:
        says = "helps"
    elif "hurts" in directions:
        says = "hurts"
    return says, f"{low} {high}"


def _among(cells: Mapping[str, Difference], sign: int) -> list[str]:
    """The cells with a clear difference of this sign, largest first."""
    clear = {name: cell.value for name, cell in cells.items() if cell.clear and cell.value * sign > 0}
    return sorted(clear, key=lambda name: -abs(clear[name]))


def _counted(names: list[str]) -> str:
    if not names:
        return "none"
    return f"{len(names)} ({', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''})"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _rate(rate: Estimate) -> str:
    return f"{rate.value:.1f} [{rate.low:.1f}, {rate.high:.1f}] %"
