"""What runs show about retrieval: retention and correction, language by language, by relevance, and by model size.

Everything is against `no_rag`, question by question; a setting without context is no part of it. The words for all of
this are in `m4rag.bench.verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from m4rag.bench.compare import Answered, Comparison, compare, read_run
from m4rag.bench.contexts import NO_RAG
from m4rag.bench.paired import Difference, holm
from m4rag.bench.predictions import group_numbers
from m4rag.bench.rates import kept_and_mended
from m4rag.bench.relevance import Relevance, read_relevance
from m4rag.bench.runs import RunPlan
from m4rag.bench.scale import Scale, Sized, profile, sizes_of
from m4rag.bench.scoring import context_effects
from m4rag.bench.statistics import ALL, RESAMPLES, Estimate, everything
from m4rag.errors import UsageError

LANGUAGES = ("variety", "joshi", "script")
"""Breakdowns that are about language."""


class SettingEffect(BaseModel):
    """What the context of one setting does.

    Attributes:
        setting: The setting.
        effect: Its accuracy minus that of `no_rag`; p is adjusted over the run's settings with context.
        macro: Mean of the varieties' effects in points, with its interval.
        retention: Percent of the answers right without context that are right with it, None if none was.
        correction: Percent of the answers wrong without context that are right with it, None if none was.
        breakdowns: Dimension to value to effect, p adjusted within the dimension (see `compare.Comparison`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    setting: str
    effect: Difference
    macro: Estimate
    retention: Estimate | None
    correction: Estimate | None
    breakdowns: dict[str, dict[str, Difference]]


class RunAnalysis(BaseModel):
    """One run.

    Attributes:
        run: The run folder.
        model: Served model name.
        note: The model's warning (e.g. random weights), None if there is none.
        dataset: Dataset name.
        images: `all` or `none`, as in the plan.
        questions: Number of questions.
        compared: Whether the run has `no_rag` to compare with.
        settings: One entry for each setting with context, empty where nothing is compared.
        relevance: The run's judged relevance, None if it is not judged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    model: str
    note: str | None
    dataset: str
    images: str
    questions: int
    compared: bool
    settings: tuple[SettingEffect, ...]
    relevance: Relevance | None


class LanguageChange(BaseModel):
    """One setting of one model in two runs that differ in the language of the instructions or of the context.

    Attributes:
        model: Served model name.
        setting: The setting.
        prompt_languages: Language of the instructions in either run.
        context_languages: Language of the context in either run, "" without context.
        comparison: The second run against the first; p overall is adjusted over the settings of the two runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    setting: str
    prompt_languages: tuple[str, str]
    context_languages: tuple[str, str]
    comparison: Comparison


class Analysis(BaseModel):
    """What the runs show, alone and together.

    Attributes:
        runs: One entry a run, in the order given.
        languages: What another language of instructions or context does, where two runs differ in it.
        scale: What the size of the model does, from the first run of each model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: tuple[RunAnalysis, ...]
    languages: tuple[LanguageChange, ...]
    scale: Scale


def analyse(
    folders: Sequence[Path], sizes: Mapping[str, float] | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> Analysis:
    """Analyse finished runs, alone and together.

    Args:
        folders: Run folders, at least one.
        sizes: Served model name to billions of parameters, for models whose name does not tell.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        UsageError: A run is named twice, or there are several models and the size of one is not known.
        BadData: A folder holds no complete run, its relevance is stale, or the runs disagree about what a question is.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("a run is named twice", where=", ".join(map(str, folders)))
    plans = [RunPlan.read(folder) for folder in folders]
    # Sizes first: they can be wrong, and reading answers takes longer.
    profiled = _profiled(plans, sizes or {})
    sides = [read_run(folder) for folder in folders]
    return Analysis(
        runs=tuple(
            _run(folder, plan, given, resamples, seed)
            for folder, plan, given in zip(folders, plans, sides, strict=True)
        ),
        languages=_language_changes(plans, sides, resamples, seed),
        scale=_scale(folders, plans, sides, profiled, resamples, seed),
    )


def _run(folder: Path, plan: RunPlan, sides: dict[str, Answered], resamples: int, seed: int) -> RunAnalysis:
    right = {setting: side.right for setting, side in sides.items()}
    groups = group_numbers(next(iter(sides.values())).questions["group"])
    effects = context_effects(right, groups, resamples=resamples, seed=seed)
    return RunAnalysis(
        run=str(folder),
        model=plan.model.name,
        note=plan.model.note,
        dataset=plan.dataset,
        images=plan.images,
        questions=plan.n_questions,
        compared=NO_RAG in sides,
        settings=tuple(
            _setting(sides[NO_RAG], sides[setting], effect, resamples, seed) for setting, effect in effects.items()
        ),
        relevance=read_relevance(folder),
    )


def _setting(without: Answered, shown: Answered, effect: Difference, resamples: int, seed: int) -> SettingEffect:
    groups = group_numbers(without.questions["group"])
    rates = kept_and_mended(
        without.right, shown.right, groups, everything(len(groups)), resamples=resamples, seed=seed
    )[ALL]
    compared = compare(without, shown, resamples=resamples, seed=seed)
    return SettingEffect(
        setting=shown.setting,
        effect=effect,
        macro=compared.macro,
        retention=rates.retention,
        correction=rates.correction,
        breakdowns=compared.breakdowns,
    )


def _language_changes(
    plans: Sequence[RunPlan], sides: Sequence[dict[str, Answered]], resamples: int, seed: int
) -> tuple[LanguageChange, ...]:
    changes: list[LanguageChange] = []
    for one, other in combinations(range(len(plans)), 2):
        if (plans[one].model.name, plans[one].dataset) == (plans[other].model.name, plans[other].dataset):
            changes += _changes(sides[one], sides[other], resamples, seed)
    return tuple(changes)


def _changes(
    first: dict[str, Answered], second: dict[str, Answered], resamples: int, seed: int
) -> list[LanguageChange]:
    """The settings of two runs of one model that differ in a language, the second against the first."""
    differing = [
        (a, second[setting])
        for setting, a in first.items()
        if setting in second
        and (a.prompt_language, a.context_language)
        != (second[setting].prompt_language, second[setting].context_language)
    ]
    compared = [compare(a, b, resamples=resamples, seed=seed) for a, b in differing]
    adjusted = holm([pair.overall.p for pair in compared])
    return [
        LanguageChange(
            model=a.model,
            setting=a.setting,
            prompt_languages=(a.prompt_language, b.prompt_language),
            context_languages=(a.context_language, b.context_language),
            comparison=pair.model_copy(update={"overall": pair.overall.model_copy(update={"p_holm": p})}),
        )
        for (a, b), pair, p in zip(differing, compared, adjusted, strict=True)
    ]


def _profiled(plans: Sequence[RunPlan], given: Mapping[str, float]) -> dict[str, float]:
    """The size of each model; empty where there is one model only, whose size then does not matter."""
    models = {plan.model.name: plan.model.root for plan in plans}
    return sizes_of(models, given) if len(models) > 1 or given else {}


def _scale(
    folders: Sequence[Path],
    plans: Sequence[RunPlan],
    sides: Sequence[dict[str, Answered]],
    sizes: Mapping[str, float],
    resamples: int,
    seed: int,
) -> Scale:
    if len({plan.model.name for plan in plans}) < 2:
        several = "" if len(plans) == 1 else f"{len(plans)} runs of one model: "
        return Scale(reason=f"{several}One model says nothing about scale; name runs of models of several sizes.")
    datasets = sorted({plan.dataset for plan in plans})
    if len(datasets) > 1:
        return Scale(reason=f"Runs of several datasets ({', '.join(datasets)}) say nothing about scale.")
    if len({plan.images for plan in plans}) > 1:
        return Scale(reason="Some of these runs sent images and some did not, so they say nothing about scale.")
    noted = next((plan.model for plan in plans if plan.model.note is not None), None)
    if noted is not None:
        return Scale(reason=f"Nothing can be concluded about scale; about {noted.name}: {noted.note}")
    first = {plan.model.name: place for place, plan in reversed(list(enumerate(plans)))}
    runs = [
        Sized(str(folders[place]), name, sizes[name], sides[place])
        for name, place in sorted(first.items(), key=lambda item: item[1])
    ]
    return profile(runs, resamples=resamples, seed=seed)
