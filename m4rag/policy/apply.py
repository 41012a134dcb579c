"""What a policy would have scored on a run: its own, another set of questions, another day."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from m4rag.bench.contexts import NATIVE
from m4rag.bench.runs import RunPlan
from m4rag.bench.scoring import everything
from m4rag.bench.statistics import Estimate
from m4rag.errors import UsageError
from m4rag.manifests import short
from m4rag.policy.estimates import estimates
from m4rag.policy.fit import answered
from m4rag.policy.model import JUDGE, Policy, decide
from m4rag.policy.observations import Observations, observe, run_id

if TYPE_CHECKING:
    import numpy as np

SEEN = "These are the questions that the policy was fitted on: a gate's accuracy on them is too good."


class Applied(BaseModel):
    """A policy on a run: percent of right answers with 95 % intervals, bootstrapped over images.

    Attributes:
        policy: Digest of the policy.
        run: Id of the run.
        retrieved: Share of the questions for which the policy retrieves, percent.
        accuracy: Its accuracy.
        never: Accuracy without retrieval.
        always: Accuracy with it.
        oracle: Accuracy if each question had the better of its two answers.
        over_never: `accuracy` minus `never` in points, paired.
        over_always: `accuracy` minus `always` in points, paired.
        notes: Warnings that must stand beside the numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    run: str
    retrieved: float
    accuracy: Estimate
    never: Estimate
    always: Estimate
    oracle: Estimate
    over_never: Estimate
    over_always: Estimate
    notes: tuple[str, ...]


def apply(policy: Policy, folder: Path) -> Applied:
    """Score a policy on a run of the same model, index and prompts.

    Args:
        policy: The policy.
        folder: The run folder.

    Raises:
        UsageError: The run is of something else than the policy was fitted for, or lacks the signal of its gate.
        BadData: The run is incomplete.
    """
    import numpy as np

    observed = observe(folder, policy.setting)
    _check(policy, observed, folder)
    retrieve = decisions(policy, observed)
    rules = {
        "policy": answered(observed, retrieve),
        "never": observed.before,
        "always": observed.after,
        "oracle": observed.before | observed.after,
    }
    found = estimates(rules, observed.groups, everything(len(retrieve)))
    seen = observed.inputs["questions"] == policy.evidence.inputs["questions"]
    return Applied(
        policy=policy.digest,
        run=run_id(observed.plan),
        retrieved=100 * float(np.mean(retrieve)),
        accuracy=found.whole("policy"),
        never=found.whole("never"),
        always=found.whole("always"),
        oracle=found.whole("oracle"),
        over_never=found.difference("policy", "never"),
        over_always=found.difference("policy", "always"),
        notes=(*([SEEN] if seen and policy.gate is not None else []), *_differences(policy, observed), *observed.notes),
    )


def decisions(policy: Policy, observed: Observations) -> np.ndarray:
    """Whether the policy retrieves, shape (rows,): what serving decides, question by question."""
    import numpy as np

    columns = {name: values.tolist() for name, values in observed.signals.items()}
    return np.array(
        [decide(policy, {name: column[row] for name, column in columns.items()}) for row in range(len(observed.before))]
    )


def _prompts(policy: Policy, plan: RunPlan) -> dict[str, tuple[str, str]]:
    """The prompts that have to be the same. Native ones differ with the languages that were asked, too: no refusal."""
    if plan.prompt_language == NATIVE:
        return {}
    return {"prompts digest": (short(plan.prompts_digest), short(policy.prompts_digest))}


def _differences(policy: Policy, observed: Observations) -> list[str]:
    """One line that names what is not as where the policy was fitted but leaves it its meaning; none if all is."""
    plan = observed.plan
    here = {
        "index": (plan.indexes[policy.setting].alias, policy.index_alias),
        "language of the passages": (observed.context_language, policy.context_language),
        "order of the options": (_order(plan.option_order), _order(policy.option_order)),
        "prompts digest": (short(plan.prompts_digest), short(policy.prompts_digest)),
    }
    differing = [f"{name} {found} (there: {fitted})" for name, (found, fitted) in here.items() if found != fitted]
    return [f"Not as where the policy was fitted: {', '.join(differing)}."] if differing else []


def _order(seed: int | None) -> str:
    return "of the dataset" if seed is None else f"drawn with seed {seed}"


def _check(policy: Policy, observed: Observations, folder: Path) -> None:
    """Refuse a run whose answers or signals do not compare with those that the policy was fitted on."""
    plan = observed.plan
    index = plan.indexes.get(policy.setting)
    same = {
        "model": (plan.model.name, policy.model),
        "weights": (plan.model.weights_digest, policy.weights_digest),
        "encoder": (index and index.encoder, policy.encoder),
        "search channel": (index and index.channel, policy.channel),
        "number of passages": (plan.k, policy.k),
        "images": (plan.images, policy.images),
        "prompt language": (plan.prompt_language, policy.prompt_language),
        **_prompts(policy, plan),
    }
    for name, (found, wanted) in same.items():
        if found != wanted:
            raise UsageError(
                f"this run's {name} is {found}, the policy's is {wanted}",
                where=str(folder),
                remedy="A policy holds for what it was fitted on; fit one for this run: m4rag policy fit.",
            )
    gate = policy.gate
    if gate is None:
        return
    if gate.signal not in observed.signals:
        why = observed.unavailable.get(gate.signal, "no question has it")
        judging = gate.signal == JUDGE
        raise UsageError(
            f"the policy's gate needs the signal {gate.signal!r}: {why}",
            where=str(folder),
            remedy=f"Run `m4rag bench judge {folder} --answer hidden`." if judging else None,
        )
    if gate.signal == JUDGE and gate.judge != observed.judge:
        raise UsageError(
            f"this run was judged by {observed.judge}, the policy's threshold is of {gate.judge}", where=str(folder)
        )
