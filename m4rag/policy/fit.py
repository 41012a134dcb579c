"""Learn from a run when to retrieve: never, always, or where a signal says so.

What is cross-fitted is the whole procedure (`m4rag.policy.choice`), the choice among the three included. So the
accuracy that is reported is that of fitting a policy on images like these and serving what comes out of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag.bench.runs import RunPlan
from m4rag.bench.scoring import everything
from m4rag.bench.statistics import RESAMPLES, partition
from m4rag.errors import BadData
from m4rag.policy.choice import Choice, fit_choice
from m4rag.policy.estimates import estimates
from m4rag.policy.gates import FOLDS, SEED, Cut, cross_fitted, fit_threshold
from m4rag.policy.model import ClassEvidence, Evidence, Gate, Policy
from m4rag.policy.observations import NothingToLearn, Observations, observe, run_id, served_settings

if TYPE_CHECKING:
    import numpy as np

MINIMUM_IMAGES = 2 * FOLDS
"""With fewer, a fold would hold one image and a bootstrap over images means little."""


@dataclass(frozen=True)
class Fitted:
    """The policies of a run by setting, and why there is none for the other settings that could be served."""

    policies: dict[str, Policy]
    refused: dict[str, str]


def fit_run(folder: Path) -> Fitted:
    """Learn and keep a policy for every setting of a finished run that can be served.

    Args:
        folder: The run folder; the policies are written into it.

    Raises:
        BadData: The run is incomplete. A sound run that can't teach a policy is no error.
    """
    policies, refused = {}, {}
    for setting in served_settings(RunPlan.read(folder)):
        try:
            policies[setting] = fit(folder, setting)
        except NothingToLearn as error:
            refused[setting] = error.what
        else:
            policies[setting].write(policies[setting].file_in(folder))
    return Fitted(policies, refused)


def fit(folder: Path, setting: str | None = None) -> Policy:
    """Learn a policy from a finished run.

    Args:
        folder: The run folder; it needs `no_rag` and a setting that retrieves.
        setting: The setting that would be served. Default: the run's only one.

    Raises:
        UsageError: The run has no such setting, or it can't be served.
        NothingToLearn: The run lacks what is needed, or has too few images.
        BadData: The run is incomplete.
    """
    observed = observe(folder, setting)
    choice, evidence = weigh(observed)
    index = observed.plan.indexes.get(observed.setting)
    if index is None:
        raise BadData(f"the plan does not say which index {observed.setting} searched", where=str(folder))
    return Policy(
        model=observed.plan.model.name,
        weights_digest=observed.plan.model.weights_digest,
        setting=observed.setting,
        index_alias=index.alias,
        encoder=index.encoder,
        channel=index.channel,
        retrieve=choice.retrieve,
        gate=_gate(choice.cut, observed) if choice.retrieve == "gated" else None,
        k=observed.plan.k,
        images=observed.plan.images,
        prompt_language=observed.plan.prompt_language,
        prompts_digest=observed.plan.prompts_digest,
        context_language=observed.context_language,
        option_order=observed.plan.option_order,
        fitted_on=run_id(observed.plan),
        evidence=evidence,
    ).sealed()


def weigh(observed: Observations, *, resamples: int = RESAMPLES, seed: int = SEED) -> tuple[Choice, Evidence]:
    """The rule that these questions support, and what each rule would have answered right on them.

    Args:
        observed: The questions.
        resamples: Bootstrap resamples.
        seed: Seed of folds and bootstrap.

    Raises:
        NothingToLearn: There are too few images.
    """
    import numpy as np

    rows = observed.rows
    images = int(rows.groups.max()) + 1
    if images < MINIMUM_IMAGES:
        raise NothingToLearn(
            f"{images} images are too few to learn from: at least {MINIMUM_IMAGES} are needed",
            where=run_id(observed.plan),
            remedy="Run more questions.",
        )
    choose = partial(fit_choice, resamples=resamples, seed=seed)
    choice, retrieve = choose(rows), cross_fitted(rows, choose, seed=seed)
    rules = {
        "never": observed.before,
        "always": observed.after,
        "gated": answered(observed, retrieve),
        "gate_alone": answered(observed, choice.alone),
        "oracle": observed.before | observed.after,
    }
    single: dict[str, np.ndarray] = {
        name: answered(observed, cross_fitted(rows, partial(fit_threshold, signal=name), seed=seed))
        for name in rows.signals
    }
    found = estimates({**rules, **single}, rows.groups, everything(len(retrieve)), resamples=resamples, seed=seed)
    evidence = Evidence(
        always_gain=choice.grounds.always_gain,
        alone_gain=choice.grounds.alone_gain,
        never=found.whole("never"),
        always=found.whole("always"),
        gated=found.whole("gated"),
        gate_alone=found.whole("gate_alone"),
        oracle=found.whole("oracle"),
        gated_over_never=found.difference("gated", "never"),
        gated_over_always=found.difference("gated", "always"),
        retrieved=100 * float(np.mean(retrieve)),
        alone_retrieved=100 * float(np.mean(choice.alone)),
        by_signal={name: found.whole(name) for name in rows.signals},
        unavailable=dict(observed.unavailable),
        by_class=_by_class(observed, rules, resamples, seed),
        folds=FOLDS,
        resamples=resamples,
        seed=seed,
        inputs=dict(observed.inputs),
        note=" ".join(observed.notes) or None,
    )
    return choice, evidence


def answered(observed: Observations, retrieve: np.ndarray) -> np.ndarray:
    """Whether the answer is right that a rule gives.

    Args:
        observed: The questions.
        retrieve: Whether the rule retrieves, shape (rows,).

    Returns:
        Shape (rows,).
    """
    import numpy as np

    return np.where(retrieve, observed.after, observed.before)


def _gate(cut: Cut, observed: Observations) -> Gate:
    return Gate(signal=cut.signal, threshold=cut.threshold, judge=observed.judge if cut.signal == "judge" else None)


def _by_class(
    observed: Observations, rules: dict[str, np.ndarray], resamples: int, seed: int
) -> dict[str, ClassEvidence]:
    shown = {name: rules[name] for name in ClassEvidence.model_fields}
    found = estimates(shown, observed.groups, partition(observed.joshi), resamples=resamples, seed=seed)
    cells = {name: found.cells(name) for name in shown}
    return {
        label: ClassEvidence(**{name: cells[name][label] for name in shown}) for label in sorted(set(observed.joshi))
    }
