"""A policy as the report shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m4rag.bench.contexts import NO_RAG
from m4rag.bench.runs import RunPlan
from m4rag.bench.statistics import Estimate
from m4rag.errors import BadData
from m4rag.policy.kept import policy_files, read_kept
from m4rag.policy.model import Policy
from m4rag.policy.words import GATED, against_the_better, change, sentence, unavailable, why_no_gate

MARKS = 8
"""Colours and shapes that a page has."""


@dataclass(frozen=True)
class Rule:
    """One rule in a policy's plot; `never` and `always` have the marks of the settings that they stand for."""

    name: str
    mark: int
    what: str
    estimate: Estimate
    chosen: bool


@dataclass(frozen=True)
class ShownPolicy:
    """One policy in words, its rules, and three of them (never, always, gated where it pays) by Joshi class."""

    policy: Policy
    sentence: str
    worth: str
    more: tuple[str, ...]
    rules: tuple[Rule, ...]
    classes: tuple[tuple[str, tuple[Estimate, ...]], ...]


@dataclass(frozen=True)
class ShownPolicies:
    """All policies of a run, and what is wrong with files that hold none that can be shown."""

    policies: tuple[ShownPolicy, ...]
    problems: tuple[str, ...]


def shown_policies(folder: Path) -> ShownPolicies:
    """The policies of a run for its report, which is also made where one of them can't be read."""
    settings = RunPlan.read(folder).settings
    policies, problems = [], []
    for path in policy_files(folder):
        try:
            policies.append(_shown(read_kept(path), settings))
        except BadData as error:
            problems.append(f"{path.name}: {error.what}")
    return ShownPolicies(tuple(policies), tuple(problems))


def _shown(policy: Policy, settings: Sequence[str]) -> ShownPolicy:
    evidence = policy.evidence
    never, always = (settings.index(setting) % MARKS for setting in (NO_RAG, policy.setting))
    # Marks that no setting has come first.
    others = sorted(set(range(MARKS)) - {never, always}, key=lambda mark: (mark < len(settings), -mark))
    gated, alone, oracle = others[:3]
    reason = why_no_gate(policy)
    rules = (
        Rule("never", never, "no passages: no_rag", evidence.never, policy.retrieve == "never"),
        Rule(
            "always",
            always,
            f"passages for every question: {policy.setting}",
            evidence.always,
            policy.retrieve == "always",
        ),
        Rule(
            GATED,
            gated,
            f"what was chosen on other pictures: passages for {evidence.retrieved:.1f} % of the questions",
            evidence.gated,
            policy.retrieve == "gated",
        ),
        Rule(
            "gate alone",
            alone,
            f"a gate even where it does not pay: passages for {evidence.alone_retrieved:.1f} %",
            evidence.gate_alone,
            False,
        ),
        Rule(
            "oracle gate", oracle, "the better of both answers each time: no gate can do better", evidence.oracle, False
        ),
    )
    return ShownPolicy(
        policy=policy,
        sentence=sentence(policy),
        worth=f"{against_the_better(evidence)} Always against never: {change(evidence.always_gain)}.",
        more=(*([reason] if reason else []), *unavailable(evidence), *([evidence.note] if evidence.note else [])),
        rules=rules,
        classes=tuple((joshi, (found.never, found.always, found.gated)) for joshi, found in evidence.by_class.items()),
    )
