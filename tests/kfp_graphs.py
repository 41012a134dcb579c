"""Nodes of an Argo workflow as Kubeflow Pipelines makes them of a pipeline, for tests that script a run."""

from __future__ import annotations

from typing import Any

from pipelines.task_states import Node


def node(name: str, state: str, at: int, *children: str, key: str = "", message: str = "") -> Node:
    """A node that started so many seconds into the run."""
    started = "" if state == "PENDING" else f"2026-11-22T10:00:{at:02d}Z"
    return Node(key or name, name, state, children, started, message)


def container(
    name: str,
    state: str,
    at: int,
    *,
    driver: str = "SUCCEEDED",
    pod: str = "",
    attempts: tuple[str, ...] = (),
    message: str = "",
    suffix: str = "",
) -> list[Node]:
    """Driver, task and pod of a task that runs a container; with `attempts`, of one that may be retried."""
    key = f"{name}{suffix}"
    nodes = [
        node(f"{name}-driver", driver, at, key, key=f"{name}-driver{suffix}"),
        node(name, state, at, *([f"{key}-pod"] if driver == "SUCCEEDED" else []), key=key),
    ]
    if driver != "SUCCEEDED":
        return nodes
    tries = [
        node(f"executor({number})", one, at + number, key=f"{key}-pod-{number}", message=message)
        for number, one in enumerate(attempts)
    ]
    text = "" if attempts else message
    nodes.append(node("executor", pod or state, at, *(one.key for one in tries), key=f"{key}-pod", message=text))
    return nodes + tries


def workflow(*parts: list[Node], state: str = "RUNNING") -> list[Node]:
    """The whole workflow around the nodes of the pipeline's own graph."""
    nodes = [one for part in parts for one in part]
    inner = {child for one in nodes for child in one.children}
    first = [one.key for one in nodes if one.key not in inner]
    return [
        node("wf-x7k2p", state, 0, "root-driver"),
        node("root-driver", "SUCCEEDED", 0, "root"),
        node("root", state, 0, *first),
        *nodes,
    ]


def reported(nodes: list[Node]) -> list[dict[str, Any]]:
    """The nodes as the server's `task_details`."""
    details = []
    for one in nodes:
        detail: dict[str, Any] = {
            "task_id": f"task-{one.key}",
            "display_name": one.name,
            "pod_name": one.key,
            "state": one.state,
            "child_tasks": [{"pod_name": child} for child in one.children],
        }
        if one.started:
            detail["start_time"] = one.started
        if one.message:
            detail["state_history"] = [
                {"update_time": one.started, "state": one.state, "error": {"code": 13, "message": one.message}}
            ]
        details.append(detail)
    return details
