"""The way of a question: images, policy, search, gate, context; with an account of what was decided and why."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cachetools import LRUCache

from m4rag.bench.judgements import MAX_TOKENS
from m4rag.bench.runner import CAPTION_TOKENS
from m4rag.encoders import Query
from m4rag.errors import M4ragError
from m4rag.index.search import Hit
from m4rag.policy.model import JUDGE, SIGNALS, Policy, Signal, decide, score_signals
from m4rag.vlm.client import TOO_LONG
from m4rag.vlm.images import ImageData, read_image
from m4rag.vlm.parsing import stated_number
from m4rag.vlm.prompts import judge_schema, render_caption, render_judge
from serving.rag.chat_request import ChatRequest
from serving.rag.context import citations, pack, with_context
from serving.rag.measures import Measures
from serving.rag.model import Model
from serving.rag.problems import Problem, invalid
from serving.rag.retrieval import Found, Search, SearchFailed
from serving.rag.rules import Rules

COMPLETIONS = "/chat/completions"
CONTEXT_BYTES = 24_000
"""UTF-8 bytes of all passages together. A prompt that is too long for the model is asked again with fewer."""

CAPTIONS_KEPT = 4096


@dataclass(frozen=True)
class Account:
    """What was done for a request; it stands in the answer's `m4rag` field.

    Attributes:
        decision: `retrieved`, `not_retrieved` or `degraded`.
        reason: Why, in a sentence.
        policy: Digest of the policy in force, None without one.
        index_alias: What was searched, None where nothing was.
        index: The collection behind it.
        gate: Signal, threshold and value of the gate, None where none was asked.
        citations: The passages that were shown, numbered as the model saw them.
        timings_ms: Milliseconds of each stage.
    """

    decision: str
    reason: str
    policy: str | None = None
    index_alias: str | None = None
    index: str | None = None
    gate: dict[str, Any] | None = None
    citations: tuple[dict[str, Any], ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def payload(self) -> dict[str, Any]:
        """The account as JSON."""
        return {
            "decision": self.decision,
            "reason": self.reason,
            "policy": self.policy,
            "index_alias": self.index_alias,
            "index": self.index,
            "gate": self.gate,
            "citations": list(self.citations),
            "timings_ms": self.timings_ms,
        }

    @property
    def headers(self) -> dict[str, str]:
        """The account's short form, for those who do not read bodies."""
        known = {"decision": self.decision, "policy": self.policy, "index": self.index}
        return {f"x-m4rag-{name}": value for name, value in known.items() if value is not None}


@dataclass(frozen=True)
class Prepared:
    """What the model gets.

    Attributes:
        request: The caller's request.
        passages: What is shown, best first; may be empty.
        account: What was done so far.
    """

    request: ChatRequest
    passages: tuple[Hit, ...]
    account: Account

    @property
    def fields(self) -> dict[str, Any]:
        """The request to the model."""
        return with_context(self.request, self.passages) if self.passages else self.request.fields

    def shorter(self) -> Prepared:
        """The same with half of the passages, the better half."""
        kept = self.passages[: len(self.passages) // 2]
        reason = f"{self.account.reason} {len(kept)} of {len(self.passages)} passages fit into the model's context."
        account = replace(self.account, reason=reason, citations=tuple(citations(kept)))
        return Prepared(self.request, kept, account)


def too_long(problem: Problem) -> bool:
    """Whether the model refused a prompt for its length."""
    return problem.status in (400, 413) and TOO_LONG.search(problem.message) is not None


async def checked_images(request: ChatRequest) -> list[ImageData]:
    """The images of a request, each a whole PNG, JPEG, WebP or GIF of a sane size.

    Raises:
        Problem: One is not.
    """
    if not request.images:
        return []
    try:
        return await asyncio.to_thread(lambda: [read_image(image) for image in request.images])
    except M4ragError as error:
        raise invalid(f"An image can't be used: {error.what}.", "messages") from None


class Preparation:
    """Decides for each request whether passages are shown, and which.

    Args:
        model: Writes captions and judges, where the policy wants that.
        measures: Where stages are measured.
    """

    def __init__(self, model: Model, measures: Measures) -> None:
        self._model = model
        self._measures = measures
        self._captions: LRUCache[str, str] = LRUCache(CAPTIONS_KEPT)

    async def prepare(self, request: ChatRequest, rules: Rules | None) -> Prepared:
        """Take a request through to what the model gets.

        Args:
            request: The request.
            rules: The rules in force, None where retrieval is off.

        Raises:
            Problem: An image can't be used, or the request asks for retrieval where there is none.
        """
        timings: dict[str, float] = {}
        with self._measures.stage("images", timings):
            images = await checked_images(request)
        if rules is None or rules.retriever is None:
            return self._without(request, rules, timings)
        policy = rules.policy
        if request.wish.retrieve == "never" or (request.wish.retrieve == "auto" and policy.retrieve == "never"):
            why = "The request says so." if request.wish.retrieve == "never" else "The policy never retrieves."
            return Prepared(request, (), Account("not_retrieved", why, policy.digest, timings_ms=timings))
        try:
            with self._measures.stage("search", timings):
                query = await self._query(request, rules, images)
                found = await rules.retriever.search(Search(query, request.wish.k or policy.k, request.wish.filters))
        except (SearchFailed, Problem) as error:
            reason = f"Answered without retrieval, which failed: {error}."
            account = Account("degraded", reason, policy.digest, rules.retriever.alias, timings_ms=timings)
            return Prepared(request, (), account)
        with self._measures.stage("gate", timings):
            return await self._gated(request, rules, images, found, timings)

    def _without(self, request: ChatRequest, rules: Rules | None, timings: dict[str, float]) -> Prepared:
        if request.wish.retrieve == "always":
            raise invalid("This endpoint has no index to retrieve from.", "m4rag.retrieve")
        reason = "Retrieval is off." if rules is None else "The policy never retrieves."
        digest = rules.policy.digest if rules else None
        return Prepared(request, (), Account("not_retrieved", reason, digest, timings_ms=timings))

    async def _query(self, request: ChatRequest, rules: Rules, images: Sequence[ImageData]) -> Query:
        """What the policy's setting searches with; a question without an image is searched by its words."""
        if not images:
            return Query(text=request.question)
        if rules.captions:
            return Query(text=f"{request.question}\n{await self._caption(images[-1])}")
        return Query(text=request.question, image=images[-1].data_url)

    async def _caption(self, image: ImageData) -> str:
        if image.digest not in self._captions:
            said = await self._say(render_caption(), image, CAPTION_TOKENS)
            self._captions[image.digest] = said
        return self._captions[image.digest]

    async def _gated(
        self, request: ChatRequest, rules: Rules, images: Sequence[ImageData], found: Found, timings: dict[str, float]
    ) -> Prepared:
        policy = rules.policy
        alias = rules.retriever.alias if rules.retriever else None
        account = Account("retrieved", "The policy always retrieves.", policy.digest, alias, found.collection)
        account = replace(account, timings_ms=timings)
        if not found.hits:
            return Prepared(request, (), replace(account, decision="not_retrieved", reason="Nothing was found."))
        shown = tuple(pack(found.hits, CONTEXT_BYTES))
        account = replace(account, citations=tuple(citations(shown)))
        if request.wish.retrieve == "always":
            return Prepared(request, shown, replace(account, reason="The request says so."))
        if policy.gate is None:
            return Prepared(request, shown, account)
        signals: dict[Signal, float | None] = score_signals([hit.score for hit in found.hits])
        if policy.gate.signal == JUDGE:
            signals[JUDGE] = await self._relevance(request.question, found.hits, images)
        account = replace(account, gate=_gate(policy, signals))
        if decide(policy, signals):
            return Prepared(request, shown, replace(account, reason=_because(policy, signals, "at least")))
        account = replace(account, decision="not_retrieved", citations=(), reason=_because(policy, signals, "below"))
        return Prepared(request, (), account)

    async def _relevance(self, question: str, hits: Sequence[Hit], images: Sequence[ImageData]) -> float | None:
        """Mean score of the passages by the judge, as in the run that the policy was fitted on."""
        image = images[-1] if images else None
        schema = judge_schema()
        prompts = [render_judge(question, hit.text) for hit in hits if hit.text.strip()]
        said = await asyncio.gather(*(self._say(prompt, image, MAX_TOKENS, schema) for prompt in prompts))
        scores = [score for text in said if (score := stated_number(text)) is not None]
        return sum(scores) / len(scores) if scores else None

    async def _say(
        self, prompt: str, image: ImageData | None, max_tokens: int, schema: dict[str, Any] | None = None
    ) -> str:
        content: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
        if image is not None:
            content.insert(0, {"type": "image_url", "image_url": {"url": image.data_url}})
        fields: dict[str, Any] = {
            "model": await self._model.name(),
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "seed": 0,
        }
        if schema is not None:
            named = {"name": "answer", "schema": schema, "strict": True}
            fields["response_format"] = {"type": "json_schema", "json_schema": named}
        made = await self._model.answer(COMPLETIONS, fields)
        try:
            return str(made["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError):
            raise Problem(502, "The model's server gave no choice.", code="bad_upstream") from None


def _gate(policy: Policy, signals: dict[Signal, float | None]) -> dict[str, Any] | None:
    gate = policy.gate
    if gate is None:
        return None
    return {"signal": gate.signal, "threshold": gate.threshold, "value": signals[gate.signal]}


def _because(policy: Policy, signals: dict[Signal, float | None], compared: str) -> str:
    gate = policy.gate
    if gate is None:
        return ""
    value = signals[gate.signal]
    shown = "unknown" if value is None else f"{value:.4g}"
    name = SIGNALS[gate.signal]
    return f"The {name} is {shown}, {compared if value is not None else 'and not'} {gate.threshold:.4g}."
