"""Wait until a service is ready, say what it waits for, and give up early where waiting cannot help."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from m4rag.deploy.causes import Category, Diagnosis, Level, Phase
from m4rag.deploy.diagnosis import current_pods, diagnose
from m4rag.deploy.observation import Sight
from m4rag.errors import CheckFailed

Object = dict[str, Any]

SAY_EVERY_S = 30.0

BUDGETS_S: Mapping[Phase, float] = {
    Phase.ACCEPTANCE: 180.0,
    Phase.SCHEDULING: 900.0,  # a node pool that grows takes minutes
    Phase.IMAGE: 900.0,  # 10 GB and more
    Phase.STORAGE: 3600.0,
    Phase.LOADING: 2400.0,  # from a network disk, then compiling
    Phase.ROUTING: 600.0,
}
"""Seconds that a start may spend in each phase, all its visits added up."""

PATIENCE_S: Mapping[Category, float] = {
    Category.IMAGE_PULL_FAILED: 180.0,  # a registry that was busy is asked again by then
    Category.CONTAINER_CONFIG: 60.0,  # a Secret that another controller is about to make
    Category.INVALID_SPEC: 60.0,  # told about the spec before, perhaps
    Category.MODEL_LOAD_FAILED: 60.0,
    Category.POD_REFUSED: 60.0,
    Category.MOUNT_FAILED: 300.0,  # a volume that another node still holds
    Category.STORAGE_HANGS: 600.0,
}
"""Seconds that a stuck state may last before it counts as a failure; for others the phase's budget decides."""


@dataclass(frozen=True)
class Clock:
    """Where the time comes from.

    Attributes:
        monotonic: Seconds that only grow.
        now: The time of day, with a zone.
    """

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))


class Observing(Protocol):
    """What is waited for; `m4rag.deploy.observation.Observer` is the real one."""

    def look(self) -> Sight:
        """The service and its pods now."""
        ...

    def wait(self, seconds: float) -> None:
        """Return when something has changed since the last look, at the latest after so many seconds."""
        ...


@dataclass(frozen=True)
class Readiness:
    """A service that became ready.

    Attributes:
        service: The service.
        pods: Its pods of the present spec.
        seconds: Seconds of this wait by phase.
    """

    service: Object
    pods: tuple[Object, ...]
    seconds: Mapping[Phase, float]


class NotReady(CheckFailed):
    """The service will not become ready, or not in time; `diagnosis` says why."""

    def __init__(self, diagnosis: Diagnosis, what: str, *, where: str) -> None:
        super().__init__(what, where=where, remedy=diagnosis.resolution or None)
        self.diagnosis = diagnosis


def wait_ready(
    observer: Observing,
    name: str,
    *,
    timeout_s: float,
    say: Callable[[str], None],
    clock: Clock | None = None,
    budgets_s: Mapping[Phase, float] = BUDGETS_S,
) -> Readiness:
    """Wait until all pods of the service's present spec are ready, no others are left, and its route is there.

    Args:
        observer: What is waited for.
        name: How messages call it.
        timeout_s: Seconds for all phases together.
        say: Told one line when the state changes its kind, and every 30 s.
        clock: Where the time comes from.
        budgets_s: Seconds for each phase.

    Raises:
        NotReady: It failed, a phase took longer than its budget, or everything took longer than `timeout_s`.
        Unavailable: The API server is gone for good, or a permission is missing.
    """
    clock = clock or Clock()
    started = last = clock.monotonic()
    told, told_at, since = None, started, started
    spent: dict[Phase, float] = {}
    before: Diagnosis | None = None
    while True:
        sight = observer.look()
        if sight.service is None:
            raise CheckFailed("it was deleted while m4rag waited for it", where=name, remedy="Deploy it again.")
        found = diagnose(sight.service, sight.pods, sight.events, clock.now(), sight.logs)
        time_s = clock.monotonic()
        if before is not None:
            spent[before.phase] = spent.get(before.phase, 0.0) + time_s - last
        if before is None or before.category is not found.category:
            since = time_s
        last, before = time_s, found
        if found.level is Level.READY:
            return Readiness(sight.service, tuple(current_pods(sight.service, sight.pods)), spent)
        if told is not found.category or time_s - told_at >= SAY_EVERY_S:
            told, told_at = found.category, time_s
            say(_line(found, time_s - started))
        reason = _hopeless(found, time_s - since, spent.get(found.phase, 0.0), time_s - started, timeout_s, budgets_s)
        if reason is not None:
            for line in found.detail.splitlines():
                say(f"    {line}")
            raise NotReady(found, f"{found.summary}{reason}", where=name)
        limits = [told_at + SAY_EVERY_S, started + timeout_s]
        limits.append(time_s + budgets_s[found.phase] - spent.get(found.phase, 0.0))
        if found.level is Level.STUCK and found.category in PATIENCE_S:
            limits.append(since + PATIENCE_S[found.category])
        observer.wait(max(0.0, min(limits) - time_s))


def _hopeless(
    found: Diagnosis,
    lasted_s: float,
    phase_s: float,
    total_s: float,
    timeout_s: float,
    budgets_s: Mapping[Phase, float],
) -> str | None:
    """Why there is no point in waiting on, as the end of a sentence; None where there is."""
    if found.level is Level.FAILED:
        return ""
    if found.level is Level.STUCK and lasted_s >= PATIENCE_S.get(found.category, float("inf")):
        return f"; it has been so for {_minutes(lasted_s)}"
    if phase_s >= budgets_s[found.phase]:
        return f"; the budget for {found.phase} is {_minutes(budgets_s[found.phase])}"
    if total_s >= timeout_s:
        return f"; the time for all of it is {_minutes(timeout_s)}"
    return None


def _line(found: Diagnosis, seconds: float) -> str:
    """One line about a state: since when it is waited for, what, and the newest line of its log."""
    detail = found.detail.splitlines()[-1:] if found.detail and found.detail not in found.summary else []
    text = " | ".join([found.summary, *detail])
    text = text if len(text) <= 300 else f"{text[:299]}…"
    return f"[{_minutes(seconds)}] {text}"


def _minutes(seconds: float) -> str:
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
