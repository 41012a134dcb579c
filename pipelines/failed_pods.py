"""Why a task's pod failed, as the cluster tells it: how its container ended, its events, its last log lines."""

from __future__ import annotations

from typing import Any

from m4rag.deploy.cluster import EVENT, POD, Cluster

LOG_LINES = 15
EVENTS = 5


def explain(cluster: Cluster, run: str, node: str) -> list[str]:
    """What the cluster knows of a failed pod, a line each.

    Args:
        cluster: Connection to the namespace that the run's pods are in.
        run: Id of the run.
        node: Id of the workflow node; the pod has it as an annotation, its own name differs.

    Raises:
        M4ragError: The cluster can't be reached, or does not let this account look.
    """
    pods = cluster.list(POD, labels=f"pipeline/runid={run}").items
    for pod in pods:
        metadata = pod["metadata"]
        if node in (metadata["name"], metadata.get("annotations", {}).get("workflows.argoproj.io/node-id")):
            name = str(metadata["name"])
            return [f"pod {name}", *_ends(pod), *_events(cluster, name), *_log(cluster, name)]
    return [f"its pod is not in namespace {cluster.namespace} of {cluster.url}"]


def _ends(pod: dict[str, Any]) -> list[str]:
    lines = []
    status = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
        state = container.get("state", {})
        ended, waiting = state.get("terminated", {}), state.get("waiting", {})
        if ended.get("exitCode"):
            lines.append(_line(f"container {container['name']} ended with {ended['exitCode']}", ended))
        elif waiting.get("reason"):
            lines.append(_line(f"container {container['name']} waits", waiting))
    return lines


def _events(cluster: Cluster, pod: str) -> list[str]:
    events = cluster.list(EVENT, fields=f"involvedObject.kind=Pod,involvedObject.name={pod}").items
    warnings = [event for event in events if event.get("type") == "Warning"]
    warnings.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return [_line(f"event, {event.get('count') or 1} x", event) for event in warnings[-EVENTS:]]


def _log(cluster: Cluster, pod: str) -> list[str]:
    text = cluster.log(pod, "main", lines=LOG_LINES)
    return [f"log: {_printable(line)}" for line in text.splitlines()[-LOG_LINES:] if line.strip()]


def _line(what: str, reason: dict[str, Any]) -> str:
    parts = [str(reason[key]) for key in ("reason", "message") if reason.get(key)]
    return _printable(" ".join(f"{what}: {': '.join(parts)}".split()))


def _printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\t" else "\ufffd" for letter in text)
