"""What the tasks of a run are doing, read from the graph nodes that the server reports.

The server lists every node of its Argo workflow. For a task `judge` these are `judge-driver`, which asks the cache,
`judge`, and in it `executor`: the pod, or the attempts `executor(0)`, `executor(1)` of one that may be retried.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

DONE = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
"""States that nothing follows."""

_EXECUTOR = re.compile(r"executor(\(\d+\))?")
_PLUMBING = re.compile(r"root|executor(\(\d+\))?|iteration-(iterations(\(.*\))?|item)|.+-driver(\(\d+\))?|.+\.onExit")
_DRIVER = re.compile(r"(?P<task>.+)-driver(\(\d+\))?")


@dataclass(frozen=True)
class Node:
    """One node of the workflow.

    Attributes:
        key: Its id in the workflow; pods carry it in an annotation.
        name: Its name in its graph.
        state: One of the server's `RuntimeState` names.
        children: Ids of the nodes inside it and after it.
        started: When, as RFC 3339 text; empty before.
        message: What the server says of it; mostly nothing.
    """

    key: str
    name: str
    state: str
    children: tuple[str, ...] = ()
    started: str = ""
    message: str = ""


@dataclass(frozen=True)
class TaskState:
    """One task of the pipeline.

    Attributes:
        key: Id of its node.
        name: Its name, with a number where a loop runs it again: `judge #2`.
        state: One of the server's `RuntimeState` names.
        note: What else there is to say: `from the cache`, `attempt 2`.
        pod: Node id of the pod that failed; empty where none did.
        message: What the server says of it.
    """

    key: str
    name: str
    state: str
    note: str = ""
    pod: str = ""
    message: str = ""

    @property
    def line(self) -> str:
        """The state as people read it: `judge: running, attempt 2`."""
        return f"{self.name}: {self.state.lower()}" + (f", {self.note}" if self.note else "")


def tasks(nodes: Iterable[Node]) -> tuple[TaskState, ...]:
    """The tasks among the nodes of a run, in the order in which they started.

    Args:
        nodes: What the server reports; the workflow itself is the node that is nobody's child.
    """
    nodes = sorted(nodes, key=lambda node: (node.started or "~", node.key))
    by_key = {node.key: node for node in nodes}
    inner = {child for node in nodes for child in node.children}
    driven = {child for node in nodes if _driven(node) for child in node.children}
    undriven = {child for node in nodes if node.state == "FAILED" and _driven(node) for child in node.children}
    found = []
    for node in nodes:
        if node.state == "FAILED" and _driven(node):
            found.append(TaskState(node.key, _driven(node), "FAILED", "before its pod", node.key, node.message))
        elif node.key in inner and node.key not in undriven and not _PLUMBING.fullmatch(node.name):
            found.append(_task(node, by_key, node.key in driven))
    return _numbered(found)


def failed(states: Iterable[TaskState]) -> tuple[TaskState, ...]:
    """The tasks whose own pod failed, not the graphs that failed with them."""
    return tuple(state for state in states if state.state == "FAILED" and state.pod)


def _driven(node: Node) -> str:
    match = _DRIVER.fullmatch(node.name)
    return match["task"] if match else ""


def _task(node: Node, by_key: dict[str, Node], driven: bool) -> TaskState:
    inside = [by_key[key] for key in node.children if key in by_key]
    executors = [child for child in inside if _EXECUTOR.fullmatch(child.name)]
    attempts = [
        by_key[key]
        for executor in executors
        for key in executor.children
        if key in by_key and _EXECUTOR.fullmatch(by_key[key].name)
    ]
    note = ""
    if node.state == "SUCCEEDED" and any(executor.state == "SKIPPED" for executor in executors):
        note = "from the cache"
    elif len(attempts) > 1:
        note = f"attempt {len(attempts)}"
    pods = [pod for pod in attempts or executors if pod.state == "FAILED"]
    if not driven and not any(child.name.startswith("iteration-driver") for child in inside):
        pods = [node]  # an importer is one pod, without a driver
    pod = max(pods, key=lambda pod: pod.started, default=None)
    if node.state != "FAILED" or pod is None:
        return TaskState(node.key, node.name, node.state, note, "", node.message)
    return TaskState(node.key, node.name, "FAILED", note, pod.key, pod.message or node.message)


def _numbered(states: list[TaskState]) -> tuple[TaskState, ...]:
    seen: dict[str, int] = {}
    numbered = []
    for state in states:
        seen[state.name] = seen.get(state.name, 0) + 1
        name = state.name if seen[state.name] == 1 else f"{state.name} #{seen[state.name]}"
        numbered.append(TaskState(state.key, name, state.state, state.note, state.pod, state.message))
    return tuple(numbered)
