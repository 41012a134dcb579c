"""A policy in plain words. It claims only what the intervals support."""

from __future__ import annotations

from m4rag.bench.statistics import Estimate
from m4rag.policy.model import SIGNALS, Evidence, Gate, Policy


def sentence(policy: Policy) -> str:
    """What the policy does and what that is worth, in one sentence."""
    evidence = policy.evidence
    never, always = f"{evidence.never.value:.1f} never", f"{evidence.always.value:.1f} always"
    if policy.gate is not None:
        return f"Retrieve when {condition(policy.gate)}: {right(evidence.gated)} against {never} and {always}."
    if policy.retrieve == "always":
        return f"Always retrieve: {right(evidence.always)} against {never}, {change(evidence.always_gain)}."
    if evidence.always_gain.high < 0:
        return (
            f"Never retrieve, it hurts this model: {right(evidence.never)} against {always}, "
            f"{change(evidence.always_gain)} with passages."
        )
    return (
        f"Never retrieve: {right(evidence.never)} against {always}. The difference is within noise "
        f"({change(evidence.always_gain)} with passages), and not retrieving is cheaper."
    )


def why_no_gate(policy: Policy) -> str | None:
    """Why no signal decides; None if one does."""
    if policy.gate is not None:
        return None
    evidence = policy.evidence
    gain = evidence.gated_gain
    if gain.low > 0 and evidence.gated_over_always.value < 0:
        return (
            f"No gate: the best one has a lower accuracy than always retrieving, {change(evidence.gated_over_always)}."
        )
    if gain.low > 0:
        return "A gate looked better out of fold, but fitted on all questions it never or always retrieves."
    verdict = "worse than" if gain.high < 0 else "not better beyond noise than"
    return f"No gate: the best one is {verdict} {evidence.plain} retrieving, {change(gain)}."


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
