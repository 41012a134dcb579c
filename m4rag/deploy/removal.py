"""Take services off a cluster: those of a run, one by name, or what has expired; and wait until their GPUs are free."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from m4rag.deploy import names
from m4rag.deploy.cluster import POD, SERVICES, SERVING_RUNTIME, Cluster, Kind
from m4rag.deploy.diagnosis import GONE_PHASES
from m4rag.deploy.observation import pods_of
from m4rag.deploy.pods import name_of
from m4rag.errors import BadData, CheckFailed

Object = dict[str, Any]

POLL_S = 2.0
SAY_EVERY_S = 30.0
REMOVED_IN_S = 900.0
KINDS = (*SERVICES, SERVING_RUNTIME)


@dataclass(frozen=True)
class Removed:
    """One object that was deleted, or that was on its way out already."""

    kind: str
    name: str
    run: str | None


def remove(
    cluster: Cluster,
    *,
    run: str | None = None,
    name: str | None = None,
    timeout_s: float = REMOVED_IN_S,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Removed]:
    """Delete what m4rag deployed for a run (or one service with its runtime), and wait until its pods are gone.

    Args:
        cluster: Where.
        run: The run whose services go.
        name: One service by name. At least one of both is given.
        timeout_s: Seconds until the pods must be gone.
        say: Told what is waited for, every 30 s.
        clock: Seconds that only grow.
        sleep: How to wait.

    Returns:
        What was deleted; nothing if there was nothing.

    Raises:
        CheckFailed: Pods are still there after `timeout_s`; names them and their nodes.
        Unavailable: The account may not, or the server is gone.
    """
    selector = names.MANAGED if run is None else names.selector(run)
    found = [(kind, thing) for kind, thing in _deployed(cluster, selector) if name in {None, name_of(thing)}]
    removed = [_delete(cluster, kind, thing) for kind, thing in found]
    services = [(kind, name_of(thing)) for kind, thing in found if kind in SERVICES]
    _wait_until_gone(cluster, services, timeout_s, say, clock, sleep)
    return removed


def reap(cluster: Cluster, now: datetime) -> list[Removed]:
    """Delete the services of this namespace that have expired, with their runtimes. Does not wait for their pods.

    Raises:
        BadData: An `expires-at` is no time; names the object. The others were deleted.
        Unavailable: The account may not, or the server is gone.
    """
    removed: list[Removed] = []
    trouble: BadData | None = None
    for kind, thing in _deployed(cluster, names.MANAGED):
        try:
            expired = _expired(kind, thing, now)
        except BadData as error:
            trouble = error
            continue
        # A runtime says nothing of an expiry: it goes with the service that it is named after.
        if expired or (kind is SERVING_RUNTIME and name_of(thing) in {one.name for one in removed}):
            removed.append(_delete(cluster, kind, thing))
    if trouble is not None:
        raise trouble
    return removed


def _expired(kind: Kind, thing: Object, now: datetime) -> bool:
    """Whether a service's time is over and nobody has begun to delete it."""
    expires = (thing["metadata"].get("annotations") or {}).get(names.EXPIRES_AT)
    if expires is None or "deletionTimestamp" in thing["metadata"]:
        return False
    return names.parse_timestamp(expires, f"{kind.name} {name_of(thing)}") <= now


def _deployed(cluster: Cluster, selector: str) -> list[tuple[Kind, Object]]:
    """What m4rag deployed, services before the runtimes that they use."""
    return [(kind, thing) for kind in KINDS for thing in cluster.list(kind, labels=selector).items]


def _delete(cluster: Cluster, kind: Kind, thing: Object) -> Removed:
    cluster.delete(kind, name_of(thing))  # one that is gone meanwhile was wanted gone
    return Removed(kind.name, name_of(thing), (thing["metadata"].get("labels") or {}).get(names.RUN))


def _wait_until_gone(
    cluster: Cluster,
    services: Sequence[tuple[Kind, str]],
    timeout_s: float,
    say: Callable[[str], None],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Poll, because nothing is to be seen but an end: pods first, then the services that wait for them."""
    started = told = clock()
    while left := _left(cluster, services):
        now = clock()
        if now - started >= timeout_s:
            raise CheckFailed(
                f"after {timeout_s:.0f} s still there: {', '.join(left)}",
                where=f"namespace {cluster.namespace}",
                remedy="See why with `kubectl describe`: a node that is gone, or a finalizer that nobody serves.",
            )
        if now - told >= SAY_EVERY_S:
            told = now
            say(f"[{now - started:.0f} s] still there: {', '.join(left)}")
        sleep(POLL_S)


def _left(cluster: Cluster, services: Sequence[tuple[Kind, str]]) -> list[str]:
    """What is still there of services: pods that hold a node's GPUs, else the service itself."""
    left = []
    for kind, name in services:
        pods = [
            f"pod {name_of(pod)} on {(pod.get('spec') or {}).get('nodeName', 'no node')}"
            for pod in cluster.list(POD, labels=pods_of(kind, name)).items
            if (pod.get("status") or {}).get("phase") not in GONE_PHASES
        ]
        left += pods or [f"{kind.name} {name}" for _ in cluster.list(kind, fields=f"metadata.name={name}").items]
    return left
