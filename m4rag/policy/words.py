"""A policy in plain words. It claims only what the intervals support."""

from __future__ import annotations

from m4rag.bench.statistics import Estimate
from m4rag.policy.model import SIGNALS, Evidence, Gate, Policy

GATED = "gated where it pays"
"""Name of the rule whose accuracy is that of fitting a policy: never, always or a gate, chosen on other images."""

TOLERATED = 1.0
"""Points: a rule is called at least as good as another if a greater loss is outside the interval of the difference."""


def sentence(policy: Policy) -> str:
    """What the policy does and what that is worth, in one sentence."""
    evidence = policy.evidence
    never, always = f"{evidence.never.value:.1f} never", f"{evidence.always.value:.1f} always"
    if policy.gate is not None:
        return f"Retrieve when {condition(policy.gate)}: {right(evidence.gated)} against {never} and {always}."
    gain = evidence.always_gain
    if policy.retrieve == "always":
        text = f"Always retrieve: {right(evidence.always)} against {never}, {change(gain)}"
        return f"{text}." if gain.low > 0 else f"{text}. The difference is within noise."
    if gain.high < 0:
        return (
            f"Never retrieve, it hurts this model: {right(evidence.never)} against {always}, "
            f"{change(gain)} with passages."
        )
    return (
        f"Never retrieve: {right(evidence.never)} against {always}. The difference is within noise "
        f"({change(gain)} with passages), and not retrieving is cheaper."
    )


def why_no_gate(policy: Policy) -> str | None:
    """Why no signal decides; None if one does."""
    if policy.gate is not None:
        return None
    gain = policy.evidence.alone_gain
    if gain.low > 0:
        return "A gate looked better out of fold, but fitted on all questions it never or always retrieves."
    verdict = "worse than" if gain.high < 0 else "not better beyond noise than"
    return f"No gate: the best one is {verdict} {policy.evidence.plain} retrieving, {change(gain)}."


def against_the_better(evidence: Evidence) -> str:
    """Whether fitting a policy loses anything against the more accurate of the two rules that need no fitting."""
    gain = evidence.gated_over_better
    if gain.low > 0:
        verdict = "is better than"
    elif gain.low > -TOLERATED:
        verdict = "is at least as good as"
    elif gain.high < 0:
        verdict = "is worse than"
    else:
        verdict = "is not told apart from"
    return f"{GATED.capitalize()} {verdict} the better of never and always ({evidence.plain}): {change(gain)}."


def condition(gate: Gate) -> str:
    """When the gate retrieves, as the end of a sentence."""
    judge = f" {gate.judge}" if gate.judge is not None else ""
    return f"the {SIGNALS[gate.signal]}{judge} is at least {gate.threshold:.4g}"


def unavailable(evidence: Evidence) -> list[str]:
    """A line for each signal that could not be used."""
    return [f"Not looked at: {SIGNALS[name]}, because {why}." for name, why in evidence.unavailable.items()]


def right(estimate: Estimate) -> str:
    """An accuracy with its interval."""
    return f"{estimate.value:.1f} % right [{interval(estimate)}]"


def interval(estimate: Estimate) -> str:
    """Both ends of an accuracy's interval."""
    return f"{estimate.low:.1f} - {estimate.high:.1f}"


def change(estimate: Estimate) -> str:
    """A difference with its interval, in points."""
    return f"{estimate.value:+.1f} points [{signed_interval(estimate)}]"


def signed_interval(estimate: Estimate) -> str:
    """Both ends of a difference's interval."""
    return f"{estimate.low:+.1f} to {estimate.high:+.1f}"
