"""Say what a service waits for or suffers from, from its objects alone: `diagnose` is pure.

KServe's own status lies in ways that are known, so it is not taken at its word. `observedGeneration` is that of another
object; `Ready` is true while old pods serve, and before the new spec was seen; a failure may be an older
spec's. What counts are pods that carry the hash of the spec (the annotation `m4rag.io/spec`, which KServe copies to
them), and failures that are newer than what was applied. `ProgressDeadlineExceeded` says only that a start takes more
than ten minutes, which large models do.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from m4rag.deploy.causes import Category, Diagnosis, Level, diagnosis
from m4rag.deploy.names import MANAGER, SPEC
from m4rag.deploy.pods import LEVELS, Logs, conditions, diagnose_pod, elapsed, is_ready, name_of, parsed

Object = dict[str, Any]

STOP = "serving.kserve.io/stop"
CONTROLLER_AFTER_S = 60.0
SOFT = frozenset({"ProgressDeadlineExceeded"})
INVALID = frozenset(
    {"InvalidSpec", "NoSupportingRuntime", "RuntimeNotRecognized", "RuntimeDisabled", "InvalidPredictorSpec"}
    | {"InvalidGPUAllocation", "ConfigNotFound", "CombineBaseError", "InvalidRenderedConfig", "ScalingCRDNotFound"}
)
ROUTES = ("IngressReady", "RouterReady")
GONE_PHASES = frozenset({"Succeeded", "Failed"})
"""Phases of pods that hold nothing of their node any more."""


def diagnose(
    service: Object,
    pods: Sequence[Object],
    events: Sequence[Object],
    now: datetime,
    logs: Logs | None = None,
) -> Diagnosis:
    """What an InferenceService or LLMInferenceService waits for, or what is wrong with it.

    Args:
        service: The service.
        pods: Its pods, those of older specs included.
        events: Events of the namespace about its pods and replica sets; others are ignored.
        now: The time, with a zone.
        logs: Last log lines by pod and container (`m4rag.deploy.pods.wanted_logs` says which help).

    Returns:
        The state that decides: a failure before a delay, a delay before progress.
    """
    if "deletionTimestamp" in service["metadata"]:
        since = elapsed(service["metadata"]["deletionTimestamp"], now)
        return diagnosis(Level.FAILED, Category.DELETING, f"{name_of(service)} is being deleted{since}")
    if is_stopped(service):
        return diagnosis(Level.FAILED, Category.STOPPED, f"{name_of(service)} is stopped and holds no GPU")
    current = current_pods(service, pods)
    found = [_pod(pod, events, now, logs or {}) for pod in current]
    found += [one for one in (_refused(service, events), _status_failure(service, current, now)) if one is not None]
    worst = max(found, key=lambda one: LEVELS.index(one.level), default=None)
    if worst is not None and worst.level is not Level.READY:
        return worst
    if len(current) < wanted_replicas(service):
        return _missing(service, len(current), now)
    return _serving(service, pods, now)


def is_stopped(service: Object) -> bool:
    """Whether somebody stopped it to free its GPUs."""
    return str((service["metadata"].get("annotations") or {}).get(STOP)).lower() == "true"


def spec_hash(service: Object) -> str | None:
    """The hash that the service's own pods carry, None for a service that m4rag did not make."""
    spec = service.get("spec") or {}
    places = [(spec.get("predictor") or {}).get("annotations"), spec.get("annotations")]
    return next((str(place[SPEC]) for place in places if place and SPEC in place), None)


def current_pods(service: Object, pods: Sequence[Object]) -> list[Object]:
    """The pods of the service's present spec that are not on their way out; evicted ones if there are no others."""
    wanted = spec_hash(service)
    alive = [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        and (wanted is None or (pod["metadata"].get("annotations") or {}).get(SPEC) == wanted)
    ]
    return [pod for pod in alive if (pod.get("status") or {}).get("phase") != "Failed"] or alive


def wanted_replicas(service: Object) -> int:
    """How many pods the service asks for at least."""
    spec = service.get("spec") or {}
    asked = (spec.get("predictor") or {}).get("minReplicas", spec.get("replicas", 1))
    return max(1, int(asked))


def workload(service: Object) -> str:
    """What the names of the service's pods and replica sets start with."""
    return f"{name_of(service)}-{'predictor' if service['kind'] == 'InferenceService' else 'kserve'}"


def _pod(pod: Object, events: Sequence[Object], now: datetime, logs: Logs) -> Diagnosis:
    about = [event for event in events if (event.get("involvedObject") or {}).get("name") == name_of(pod)]
    return diagnose_pod(pod, about, now, logs)


def _refused(service: Object, events: Sequence[Object]) -> Diagnosis | None:
    """The API server refused the service's pods: a quota, or a policy."""
    applied = applied_at(service)
    for event in events:
        about = event.get("involvedObject") or {}
        newest = str(event.get("lastTimestamp") or event["metadata"].get("creationTimestamp"))
        if event.get("reason") != "FailedCreate" or not str(about.get("name")).startswith(workload(service)):
            continue
        if parsed(newest) < applied:
            continue
        message = " ".join(str(event.get("message")).split())
        if "exceeded quota" in message:
            return diagnosis(
                Level.STUCK, Category.QUOTA_EXCEEDED, f"{name_of(service)} gets no pod: a quota is used up", message
            )
        return diagnosis(Level.STUCK, Category.POD_REFUSED, f"{name_of(service)} gets no pod: it is refused", message)
    return None


def applied_at(service: Object) -> datetime:
    """When m4rag changed the service last; when it was made, if another tool did."""
    mine = [
        entry["time"]
        for entry in service["metadata"].get("managedFields") or ()
        if entry.get("manager") == MANAGER and "time" in entry and not entry.get("subresource")
    ]
    return max(parsed(time) for time in [*mine, service["metadata"]["creationTimestamp"]])


def _status_failure(service: Object, current: Sequence[Object], now: datetime) -> Diagnosis | None:
    """What KServe itself reports as failed, if it can be about this spec."""
    status = service.get("status") or {}
    model = status.get("modelStatus") or {}
    name = name_of(service)
    if model.get("transitionStatus") in {"InvalidSpec", "BlockedByFailedLoad"}:
        failure = model.get("lastFailureInfo") or {}
        reason, message = str(failure.get("reason") or model["transitionStatus"]), str(failure.get("message") or "")
        invalid = model["transitionStatus"] == "InvalidSpec" or reason in INVALID
        category = Category.INVALID_SPEC if invalid else Category.MODEL_LOAD_FAILED
        code = f" (exit code {failure['exitCode']})" if failure.get("exitCode") else ""
        since = None if failure.get("time") is None else parsed(failure["time"])
        return _reported(service, current, category, f"{name}: {reason}{code}", message, since)
    for condition in conditions(service):
        reason = str(condition.get("reason") or "")
        if condition["status"] == "False" and reason in INVALID:
            since = parsed(condition["lastTransitionTime"]) if condition.get("lastTransitionTime") else None
            message = str(condition.get("message") or "")
            return _reported(service, current, Category.INVALID_SPEC, f"{name}: {reason}", message, since)
    del now
    return None


def _reported(
    service: Object, current: Sequence[Object], category: Category, summary: str, message: str, since: datetime | None
) -> Diagnosis | None:
    """A reported failure: fatal if newer than the spec, doubtful if older or undated, void if the pods are well."""
    message = " ".join(message.split())
    told = f"{summary}: {message}" if message else summary
    if since is not None and since >= applied_at(service):
        return diagnosis(Level.FAILED, category, told, message)
    if current and all(is_ready(pod) for pod in current):
        return None
    if category is Category.MODEL_LOAD_FAILED and current:
        return None  # these pods speak for themselves
    return diagnosis(Level.STUCK, category, told, message)


def _missing(service: Object, there: int, now: datetime) -> Diagnosis:
    """Fewer pods than asked for, and nothing says why."""
    name = name_of(service)
    age = (now - applied_at(service)).total_seconds()
    if there:
        wanted = wanted_replicas(service)
        return diagnosis(Level.PROGRESSING, Category.PROGRESSING, f"{name} has {there} of {wanted} pods")
    summary = f"{name} has no pod of its present spec{elapsed(applied_at(service).isoformat(), now)}"
    failing = [one for one in conditions(service) if one["status"] == "False" and one.get("reason") not in SOFT]
    detail = "; ".join(f"{one['type']}: {one.get('reason')} {one.get('message') or ''}".strip() for one in failing)
    level = Level.STUCK if age > CONTROLLER_AFTER_S else Level.PROGRESSING
    return diagnosis(level, Category.WAITING_FOR_CONTROLLER, summary, detail)


def _serving(service: Object, pods: Sequence[Object], now: datetime) -> Diagnosis:
    """All pods of the spec are ready: what remains is the rest of the roll-out and the route."""
    name = name_of(service)
    old = [pod for pod in pods if pod not in current_pods(service, pods) and _holds(pod)]
    if old:
        names = ", ".join(name_of(pod) for pod in old)
        return diagnosis(Level.PROGRESSING, Category.ROLLING_OUT, f"{name} still has pods of its last spec: {names}")
    ready = next((one for one in conditions(service) if one["type"] == "Ready"), None)
    if ready is not None and ready["status"] == "True":
        return diagnosis(Level.READY, Category.READY, f"{name} is ready: {len(current_pods(service, pods))} pods")
    for condition in conditions(service):
        if condition["type"] in ROUTES and condition["status"] == "False":
            since = elapsed(condition.get("lastTransitionTime"), now)
            detail = f"{condition.get('reason') or ''} {condition.get('message') or ''}".strip()
            return diagnosis(Level.STUCK, Category.ROUTE_NOT_READY, f"{name} has pods but no route{since}", detail)
    detail = str((ready or {}).get("message") or "")
    return diagnosis(
        Level.PROGRESSING, Category.ROLLING_OUT, f"{name} has its pods; KServe has yet to say Ready", detail
    )


def _holds(pod: Object) -> bool:
    """Whether a pod still takes up its node's GPUs."""
    return (pod.get("status") or {}).get("phase") not in GONE_PHASES
