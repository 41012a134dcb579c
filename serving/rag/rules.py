"""The policy that is served, and the index it searches; a changed file is taken while requests are being answered."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from m4rag.bench.contexts import CAPTION_QUERY
from m4rag.errors import M4ragError, UsageError
from m4rag.policy.model import JUDGE, Policy
from m4rag.settings import Settings
from serving.rag.configuration import Configuration
from serving.rag.measures import Measures
from serving.rag.retrieval import Retriever

CHECK_EVERY_S = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rules:
    """A policy with the means to apply it.

    Attributes:
        policy: The policy.
        retriever: Searches its index; None for a policy that never retrieves.
    """

    policy: Policy
    retriever: Retriever | None

    @property
    def captions(self) -> bool:
        """Whether what is searched with is the model's caption of the image, not the image itself."""
        return self.policy.setting == CAPTION_QUERY


async def read_rules(path: Path, configuration: Configuration, settings: Settings, model: str) -> Rules:
    """Read a policy file and check that it can be applied here.

    Args:
        path: The file.
        configuration: The endpoint's.
        settings: Where Milvus and the encoder are.
        model: Name of the model that is served.

    Raises:
        BadData: The file is missing, is no policy, or was changed.
        UsageError: The policy is of another model or index, or its gate can't be asked here.
        Unavailable: Milvus or the encoder does not answer.
    """
    policy = await asyncio.to_thread(Policy.read, path)
    if policy.model != model:
        raise UsageError(
            f"the policy is of the model {policy.model!r}, served is {model!r}",
            where=str(path),
            remedy="A policy holds for the model it was fitted on: serve that one, or fit one for this model.",
        )
    if policy.gate is not None and policy.gate.signal == JUDGE and policy.gate.judge != model:
        raise UsageError(
            f"the policy's gate asks the judge {policy.gate.judge!r}, and only {model!r} is at hand",
            where=str(path),
            remedy="Fit the policy with the scores of the model itself, or without judgements.",
        )
    if policy.retrieve == "never":
        return Rules(policy, None)
    alias = configuration.index or policy.index_alias
    retriever = Retriever(settings, alias, policy.channel, configuration.retrieve_timeout_s)  # type: ignore[arg-type]
    try:
        described = await retriever.check()
        if policy.channel != "bm25" and described.encoder != policy.encoder:
            raise UsageError(
                f"the index {alias} has vectors of {described.encoder}, the policy was fitted with {policy.encoder}",
                where=str(path),
            )
    except M4ragError:
        retriever.close()
        raise
    return Rules(policy, retriever)


class RulesFile:
    """The rules in force. `watch` replaces them when the file changes; rules that can't be applied are refused.

    Args:
        path: The policy file.
        configuration: The endpoint's.
        settings: Where Milvus and the encoder are.
        measures: Counts files taken and refused.
    """

    def __init__(self, path: Path, configuration: Configuration, settings: Settings, measures: Measures) -> None:
        self._path = path
        self._configuration = configuration
        self._settings = settings
        self._measures = measures
        self._rules: Rules | None = None
        self._seen: bytes = b""

    @property
    def current(self) -> Rules:
        """The rules in force."""
        if self._rules is None:
            raise RuntimeError("RulesFile.load was not called")
        return self._rules

    async def load(self, model: str) -> None:
        """Read the file; requests that are under way keep the rules they began with.

        Raises:
            M4ragError: It can't be applied; the rules in force stay.
        """
        content = await asyncio.to_thread(_content, self._path)
        try:
            rules = await read_rules(self._path, self._configuration, self._settings, model)
        except M4ragError:
            self._measures.policies.labels("refused").inc()
            raise
        finally:
            self._seen = content
        before, self._rules = self._rules, rules
        self._measures.policies.labels("taken").inc()
        log.info("policy %s in force: %s", rules.policy.digest[:12], rules.policy.retrieve)
        if before is not None and before.retriever is not None:
            # Requests under way may still search with it.
            loop = asyncio.get_running_loop()
            loop.call_later(2 * self._configuration.retrieve_timeout_s, before.retriever.close)

    async def watch(self, model: str) -> None:
        """Look at the file every two seconds, for ever."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            if await asyncio.to_thread(_content, self._path) == self._seen:
                continue
            try:
                await self.load(model)
            except M4ragError as error:
                log.error("policy refused, %s stays in force: %s", self.current.policy.digest[:12], error)

    def close(self) -> None:
        """Leave Milvus."""
        if self._rules is not None and self._rules.retriever is not None:
            self._rules.retriever.close()


def _content(path: Path) -> bytes:
    """The file as it is; a ConfigMap's file is a link that is exchanged, so its times say nothing."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
