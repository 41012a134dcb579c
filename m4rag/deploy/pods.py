"""What one pod's status and events say about it. Pure: objects, log lines and the time in, a diagnosis out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from m4rag.deploy.causes import Category, Diagnosis, Level, diagnosis
from m4rag.vlm.failures import last_error

Object = dict[str, Any]
Logs = Mapping[tuple[str, str], str]
"""Last log lines by pod and container: of a crashed container those of the run that crashed."""

CRASHES = 3
HANGS_AFTER_S = 1800.0
LOG_LINES = 8

PULL_FAILED = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "SignatureValidationFailed"})
IMAGE_INVALID = frozenset({"InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
CONFIG_FAILED = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})

INSUFFICIENT = re.compile(r"(\d+) Insufficient ([\w./-]+)")
TAINT = re.compile(r"taints? \{([^}]*)\}")
NODES = re.compile(r"^0/(\d+) nodes")


def name_of(thing: Object) -> str:
    """An object's name."""
    return str(thing["metadata"]["name"])


def is_ready(pod: Object) -> bool:
    """Whether a pod is Ready and not on its way out."""
    if "deletionTimestamp" in pod["metadata"]:
        return False
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions(pod))


def conditions(thing: Object) -> Sequence[Object]:
    """An object's conditions."""
    return (thing.get("status") or {}).get("conditions") or ()


def wanted_logs(pods: Sequence[Object]) -> list[tuple[str, str, bool]]:
    """Pod, container and whether of its last run: the logs that would help to explain these pods."""
    wanted = []
    for pod in pods:
        for status in _statuses(pod):
            state = status.get("state") or {}
            if "terminated" in (status.get("lastState") or {}) and "terminated" not in state:
                wanted.append((name_of(pod), str(status["name"]), True))
            elif (state.get("terminated") or {}).get("exitCode") or ("running" in state and not status.get("ready")):
                wanted.append((name_of(pod), str(status["name"]), False))
    return wanted


def diagnose_pod(pod: Object, events: Sequence[Object], now: datetime, logs: Logs) -> Diagnosis:
    """What a pod waits for, or what is wrong with it.

    Args:
        pod: The pod.
        events: Events about it, in any order.
        now: The time.
        logs: Log lines, see `wanted_logs`.
    """
    status, name = pod.get("status") or {}, name_of(pod)
    if status.get("phase") == "Failed" and status.get("reason") == "Evicted":
        return diagnosis(Level.STUCK, Category.EVICTED, f"pod {name} was evicted", _line(status.get("message")))
    if is_ready(pod):
        return diagnosis(Level.READY, Category.READY, f"pod {name} is ready")
    scheduled = next((one for one in conditions(pod) if one["type"] == "PodScheduled"), None)
    if scheduled is not None and scheduled["status"] == "False":
        return _unscheduled(name, scheduled, now)
    found = [_container(pod, one, events, now, logs) for one in _statuses(pod)]
    troubles = [one for one in found if one is not None]
    if not troubles:
        since = elapsed(pod["metadata"].get("creationTimestamp"), now)
        return diagnosis(Level.PROGRESSING, Category.PROGRESSING, f"pod {name} starts{since}")
    return max(troubles, key=lambda one: LEVELS.index(one.level))


LEVELS = (Level.READY, Level.PROGRESSING, Level.STUCK, Level.FAILED)


def elapsed(timestamp: str | None, now: datetime) -> str:
    """` for 12 min`, from an RFC 3339 time; "" without one."""
    if timestamp is None:
        return ""
    seconds = max(0, int((now - parsed(timestamp)).total_seconds()))
    return f" for {seconds} s" if seconds < 120 else f" for {seconds // 60} min"


def parsed(timestamp: str) -> datetime:
    """A time as the API server writes it."""
    return datetime.fromisoformat(timestamp)


def _unscheduled(name: str, condition: Object, now: datetime) -> Diagnosis:
    message = _line(condition.get("message"))
    since = elapsed(condition.get("lastTransitionTime"), now)
    if condition.get("reason") == "SchedulingGated":
        return diagnosis(Level.PROGRESSING, Category.QUEUED, f"pod {name} waits in a queue{since}", message)
    lacking = list(dict.fromkeys(f"{resource} (on {count} nodes)" for count, resource in INSUFFICIENT.findall(message)))
    taints = list(dict.fromkeys(f"taint {{{taint}}}" for taint in TAINT.findall(message)))
    selectors = ["its node selector"] if "affinity/selector" in message or "match node selector" in message else []
    nodes = NODES.match(message)
    among = f", of {nodes[1]} nodes" if nodes else ""
    if lacking:
        kept_out = f"; kept from others by {', '.join(taints + selectors)}" if taints + selectors else ""
        what = f"not enough {', '.join(lacking)}{kept_out}"
        category = Category.UNSCHEDULABLE_RESOURCE
    elif "PersistentVolumeClaim" in message or "volume node affinity" in message or "persistentvolumeclaim" in message:
        what, category = "its volume is not bound", Category.UNSCHEDULABLE_VOLUME
    else:
        what = f"kept from every node by {', '.join(taints + selectors)}" if taints + selectors else "no node takes it"
        category = Category.UNSCHEDULABLE_NODE
    return diagnosis(Level.STUCK, category, f"pod {name} is not scheduled{since}: {what}{among}", message)


def _statuses(pod: Object) -> list[Object]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _container(pod: Object, status: Object, events: Sequence[Object], now: datetime, logs: Logs) -> Diagnosis | None:
    """What a container waits for or suffers from; None for one that is ready, is done, or has not had its turn."""
    state = status.get("state") or {}
    if waiting := state.get("waiting"):
        return _waiting(pod, status, str(waiting.get("reason")), _line(waiting.get("message")), events, now, logs)
    if ended := state.get("terminated"):
        return _ended(pod, status, ended, logs) if ended.get("exitCode") else None
    if status.get("ready"):
        return None
    if (last := (status.get("lastState") or {}).get("terminated")) and last.get("exitCode"):
        return _ended(pod, status, last, logs)
    return _running(pod, status, state.get("running") or {}, events, now, logs)


def _waiting(
    pod: Object, status: Object, reason: str, message: str, events: Sequence[Object], now: datetime, logs: Logs
) -> Diagnosis | None:
    image, where = status.get("image") or "its image", _where(pod, status)
    if reason in PULL_FAILED:
        return diagnosis(Level.STUCK, Category.IMAGE_PULL_FAILED, f"{where}: {image} is not pulled", message)
    if reason in IMAGE_INVALID:
        return diagnosis(Level.FAILED, Category.INVALID_IMAGE, f"{where}: {image} is no image to run", message)
    if reason in CONFIG_FAILED:
        return diagnosis(Level.STUCK, Category.CONTAINER_CONFIG, f"{where} is not created: {message}", message)
    if reason == "CrashLoopBackOff":
        last = (status.get("lastState") or {}).get("terminated") or {}
        return _ended(pod, status, last, logs)
    return _creating(pod, status, events, now)


def _creating(pod: Object, status: Object, events: Sequence[Object], now: datetime) -> Diagnosis | None:
    """A container that is about to start: its volumes are mounted, its image is pulled, or others go first."""
    last = max(events, key=_seen, default=None)
    if last is None:
        return None
    message, name = _line(last.get("message")), name_of(pod)
    if last.get("reason") in {"FailedMount", "FailedAttachVolume"}:
        return diagnosis(Level.STUCK, Category.MOUNT_FAILED, f"pod {name} waits for a volume: {message}", message)
    if last.get("reason") == "Pulling" and str(status.get("image")) in message:
        since = elapsed(_seen(last) or None, now)
        image = status["image"]
        return diagnosis(Level.PROGRESSING, Category.IMAGE_PULLING, f"pod {name} pulls {image}{since}")
    return None


def _ended(pod: Object, status: Object, ended: Object, logs: Logs) -> Diagnosis:
    """A container that ended although it should run, or an init container that failed."""
    where, storage = _where(pod, status), _is_storage(pod, status)
    restarts = int(status.get("restartCount") or 0)
    detail = _last_lines(logs.get((name_of(pod), str(status["name"]))) or str(ended.get("message") or ""))
    if ended.get("reason") == "OOMKilled":
        category = Category.STORAGE_OUT_OF_MEMORY if storage else Category.OUT_OF_MEMORY
        limit = _memory_limit(pod, str(status["name"]))
        return diagnosis(Level.FAILED, category, f"{where} was killed: more memory than its limit{limit}", detail)
    code = ended.get("exitCode")
    cause = last_error(detail)
    because = f": {cause}" if cause else ""
    times = f", {restarts} restarts" if restarts else ""
    level = Level.FAILED if restarts >= CRASHES else Level.STUCK
    category = Category.STORAGE_FAILED if storage else Category.CRASH_LOOP
    what = "fails" if storage else "crashes"
    return diagnosis(level, category, f"{where} {what} (exit code {code}{times}){because}", detail)


def _running(
    pod: Object, status: Object, running: Object, events: Sequence[Object], now: datetime, logs: Logs
) -> Diagnosis | None:
    """A container that runs and is not ready."""
    since = elapsed(running.get("startedAt"), now)
    log = logs.get((name_of(pod), str(status["name"])), "").strip()
    newest = log.splitlines()[-1] if log else ""
    if _is_init(pod, status):
        if not _is_storage(pod, status):
            return diagnosis(Level.PROGRESSING, Category.PROGRESSING, f"{_where(pod, status)} runs{since}", newest)
        started = running.get("startedAt")
        hangs = started is not None and (now - parsed(started)).total_seconds() > HANGS_AFTER_S
        if hangs:
            summary = f"pod {name_of(pod)} has been downloading the model{since} without an end"
            return diagnosis(Level.STUCK, Category.STORAGE_HANGS, summary, newest)
        return diagnosis(
            Level.PROGRESSING, Category.STORAGE_DOWNLOADING, f"pod {name_of(pod)} downloads the model{since}", newest
        )
    unhealthy = [event for event in events if event.get("reason") == "Unhealthy"]
    last = max(unhealthy, key=_seen, default=None)
    if status.get("started") and last is not None:
        message = _line(last.get("message"))
        return diagnosis(
            Level.STUCK, Category.PROBE_FAILING, f"{_where(pod, status)} fails its probe: {message}", newest or message
        )
    return diagnosis(Level.PROGRESSING, Category.LOADING, f"pod {name_of(pod)} loads the model{since}", newest)


def _where(pod: Object, status: Object) -> str:
    return f"pod {name_of(pod)}, container {status['name']}"


def _is_init(pod: Object, status: Object) -> bool:
    """Whether it runs before the others; one that restarts always is a sidecar and runs beside them."""
    declared = (pod.get("spec") or {}).get("initContainers") or ()
    return any(one["name"] == status["name"] and one.get("restartPolicy") != "Always" for one in declared)


def _is_storage(pod: Object, status: Object) -> bool:
    """Whether it brings the model: KServe calls it `storage-initializer`, `modelcar-init` and the like."""
    name = str(status["name"])
    return _is_init(pod, status) and ("storage" in name or "modelcar" in name)


def _memory_limit(pod: Object, container: str) -> str:
    spec = pod.get("spec") or {}
    for one in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        if one["name"] == container and (limit := ((one.get("resources") or {}).get("limits") or {}).get("memory")):
            return f" of {limit}"
    return ""


def _seen(event: Object) -> str:
    """When an event was seen last; RFC 3339 in UTC, so text order is time order."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")


def _line(text: object) -> str:
    return " ".join(str(text or "").split())


def _last_lines(log: str) -> str:
    return "\n".join(log.rstrip().splitlines()[-LOG_LINES:])
