"""What a policy is, and what it decides. Nothing heavy is imported here: the process that serves questions uses this.

A policy is a JSON file. Its digest covers everything in it, the evidence too, so a file that was changed by hand is
refused: what is served is what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from m4rag.bench.statistics import Estimate
from m4rag.errors import BadData, UsageError
from m4rag.manifests import digest, write_atomic

Plain = Literal["never", "always"]
Retrieve = Literal["never", "always", "gated"]
Signal = Literal["score", "margin", "judge"]

SCORE: Signal = "score"
MARGIN: Signal = "margin"
JUDGE: Signal = "judge"

SIGNALS: dict[Signal, str] = {
    SCORE: "best score",
    MARGIN: "margin of the best score over the last",
    JUDGE: "mean relevance by the judge",
}
"""What a gate may look at, with its name in a sentence. Each is known before the model is asked."""


class Content(BaseModel):
    """Part of a policy: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Gate(Content):
    """Retrieve where a signal is at least a threshold.

    Attributes:
        signal: What is looked at.
        threshold: In the signal's own unit: of the index's scores for `score` and `margin`, 1 to 5 for `judge`.
        judge: Name of the model whose scores the threshold is of, None for other signals.
    """

    signal: Signal
    threshold: float
    judge: str | None = None


class ClassEvidence(Content):
    """What the rules give on the languages of one Joshi resource class. Percent."""

    never: Estimate
    always: Estimate
    gated: Estimate


class Grounds(Content):
    """What a rule is chosen by: paired differences in points with 95 % intervals, bootstrapped over images.

    Attributes:
        always_gain: `always` minus `never`.
        alone_gain: The cross-fitted gate minus the better of the two.
    """

    always_gain: Estimate
    alone_gain: Estimate

    @property
    def plain(self) -> Plain:
        """The rule to serve if there is no gate."""
        return better(self.always_gain)


class Evidence(Grounds):
    """What the choice rests on and what it is worth: percent of right answers with 95 % intervals over images.

    Attributes:
        never: Accuracy without retrieval.
        always: Accuracy with it.
        gated: Accuracy of fitting a policy: each question is decided by the rule (never, always or a gate) that was
            chosen, and fitted, on other images. So it pays for a wrong choice.
        gate_alone: Accuracy if a gate always decides: cross-fitted, too.
        oracle: Accuracy if each question had the better of its two answers. No gate can do better.
        gated_over_never: `gated` minus `never` in points, paired.
        gated_over_always: `gated` minus `always` in points, paired.
        retrieved: Share of the questions for which `gated` retrieves, percent.
        alone_retrieved: The same of `gate_alone`.
        by_signal: The same as `gate_alone` for a gate that may look at one signal only.
        unavailable: Signals that could not be used, with the reason.
        by_class: The rules by Joshi resource class of the question's language, `0` to `5`.
        folds: Into how many parts the images were cut.
        resamples: Bootstrap resamples.
        seed: Seed of folds and bootstrap.
        inputs: Digests of the questions, answers and judgements that were read.
        note: A warning that must stand beside every number, None if there is none.
    """

    never: Estimate
    always: Estimate
    gated: Estimate
    gate_alone: Estimate
    oracle: Estimate
    gated_over_never: Estimate
    gated_over_always: Estimate
    retrieved: float
    alone_retrieved: float
    by_signal: dict[Signal, Estimate]
    unavailable: dict[Signal, str]
    by_class: dict[str, ClassEvidence]
    folds: int
    resamples: int
    seed: int
    inputs: dict[str, str]
    note: str | None = None

    @property
    def gated_over_better(self) -> Estimate:
        """What `gated` gives over the more accurate of `never` and `always`, in points."""
        return self.gated_over_always if self.plain == "always" else self.gated_over_never


def better(always_gain: Estimate) -> Plain:
    """The more accurate of `never` and `always`; of equal ones `never`, which is cheaper."""
    return "always" if always_gain.value > 0 else "never"


class Policy(Content):
    """When to retrieve, for one model, index and way of searching.

    Attributes:
        format: Version of the file.
        model: Served name of the model.
        weights_digest: Digest of its weights, None if the run did not know it.
        setting: How passages are searched: `caption_query` or `multimodal:<encoder>`.
        index_alias: Alias of the index that is searched.
        encoder: Encoder of that index.
        channel: How it is searched: `dense`, `bm25` or `hybrid`. Scores of different channels do not compare.
        retrieve: `never`, `always` or `gated`.
        gate: The gate, None unless `retrieve` is `gated`.
        k: Passages shown to the model.
        images: `all` if the model saw the images, else `none`.
        prompt_language: Language of the instructions.
        prompts_digest: Digest of their templates.
        context_language: Language of the passages, `mixed` as they are found.
        option_order: Seed of the order that options were shown in; None for the dataset's order.
        fitted_on: Id of the run that it was learned from.
        evidence: What the choice rests on.
        digest: SHA-256 over all of the above.
    """

    format: Literal[1] = 1
    model: str
    weights_digest: str | None
    setting: str
    index_alias: str
    encoder: str
    channel: str
    retrieve: Retrieve
    gate: Gate | None
    k: int = Field(ge=1)
    images: str
    prompt_language: str
    prompts_digest: str
    context_language: str
    option_order: int | None
    fitted_on: str
    evidence: Evidence
    digest: str = ""

    @model_validator(mode="after")
    def _gate_if_gated(self) -> Policy:
        if (self.retrieve == "gated") != (self.gate is not None):
            raise ValueError("a gate belongs to a gated policy, and to no other")
        return self

    @property
    def content_digest(self) -> str:
        """SHA-256 over everything but the digest itself."""
        return digest(self.model_dump(mode="json", exclude={"digest"}))

    def sealed(self) -> Policy:
        """The same policy with the digest of its content."""
        return self.model_copy(update={"digest": self.content_digest})

    @classmethod
    def read(cls, path: Path) -> Policy:
        """Read a policy file.

        Raises:
            BadData: There is none, it is not a policy, or it was changed after it was fitted.
        """
        remedy = "Fit it again: m4rag policy fit."
        try:
            policy = cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise BadData("no policy file", where=str(path), remedy="Make one: m4rag policy fit.") from None
        except ValidationError as error:
            raise BadData(f"not a policy ({error.error_count()} errors)", where=str(path), remedy=remedy) from None
        if policy.digest != policy.content_digest:
            raise BadData("changed since it was fitted: its digest does not match", where=str(path), remedy=remedy)
        return policy

    def file_in(self, run: Path) -> Path:
        """Where the policy is kept in the folder of its run."""
        return run / f"policy-{self.setting.replace(':', '-').replace('/', '-')}.json"

    def write(self, path: Path) -> None:
        """Write the policy file, atomically."""
        write_atomic(path, self.model_dump_json(indent=2).encode() + b"\n")


def score_signals(scores: Sequence[float]) -> dict[Signal, float | None]:
    """What the scores of the passages found for one question say.

    Args:
        scores: Best first, as the search gave them.

    Returns:
        `score`, the best one, None if nothing was found; `margin`, the best minus the last, None for fewer than two.
    """
    return {
        SCORE: scores[0] if scores else None,
        MARGIN: scores[0] - scores[-1] if len(scores) > 1 else None,
    }


def decide(policy: Policy, signals: Mapping[Signal, float | None]) -> bool:
    """Whether to show passages for one question.

    Args:
        policy: The policy.
        signals: Value of each signal that was measured; None (or NaN) where there is nothing to measure, as where
            nothing was found. Then a gated policy does not retrieve.

    Raises:
        UsageError: The policy's gate needs a signal that was not measured.
    """
    if policy.gate is None:
        return policy.retrieve == "always"
    if policy.gate.signal not in signals:
        raise UsageError(f"the policy's gate needs the signal {policy.gate.signal!r}, which was not measured")
    value = signals[policy.gate.signal]
    return value is not None and not math.isnan(value) and value >= policy.gate.threshold


def payload(policy: Policy, path: Path) -> dict[str, Any]:
    """The policy as JSON, with the file it is in."""
    return {"file": str(path), **policy.model_dump(mode="json")}
