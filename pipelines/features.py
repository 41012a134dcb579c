"""Which server a compiled pipeline needs: an older one ignores what it does not know, GPU selectors included."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.ir import IR

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Feature:
    """Something that a server understands from a version on.

    Attributes:
        name: What it is, as it stands in the message.
        since: First version of the API server that acts on it.
        source: Where that is written: a pull request of kubeflow/pipelines, or the release whose protocol first has it.
        used: Whether a pipeline uses it.
    """

    name: str
    since: Version
    source: str
    used: Callable[[IR], bool]


def _pods(*fields: str) -> Callable[[IR], bool]:
    """Any executor has one of these fields in the platform document."""
    return lambda ir: any(
        field in pod
        for pod in ir.kubernetes.get("deploymentSpec", {}).get("executors", {}).values()
        for field in fields
    )


def _pipeline(*fields: str) -> Callable[[IR], bool]:
    """The pipeline's own configuration has one of these fields."""
    return lambda ir: any(field in ir.kubernetes.get("pipelineConfig", {}) for field in fields)


def _tasks(test: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Callable[[IR], bool]:
    """Any task, given with its component, passes the test."""
    return lambda ir: any(test(task.task, task.component) for task in ir.tasks())


def _parameter_types(component: dict[str, Any]) -> set[str]:
    parameters = component.get("inputDefinitions", {}).get("parameters", {})
    return {definition["parameterType"] for definition in parameters.values()}


FEATURES = (
    Feature("Kubernetes settings of steps", (2, 0, 0), "2.0.0", lambda ir: bool(ir.kubernetes)),
    Feature("time limits of steps", (2, 1, 0), "#10481", _pods("activeDeadlineSeconds")),
    Feature("config maps", (2, 1, 0), "#10483", _pods("configMapAsEnv", "configMapAsVolume")),
    Feature("tolerations", (2, 1, 0), "#10471", _pods("tolerations")),
    Feature("pod labels and annotations", (2, 1, 0), "#10393", _pods("podMetadata")),
    Feature("environment from pod fields", (2, 1, 0), "#10496", _pods("fieldPathAsEnv")),
    Feature("image pull policies", (2, 1, 0), "#10417", _pods("imagePullPolicy")),
    Feature("image pull secrets", (2, 1, 0), "#10427", _pods("imagePullSecret")),
    Feature("ephemeral volumes", (2, 2, 0), "#10605", _pods("genericEphemeralVolume")),
    Feature("emptyDir volumes", (2, 4, 0), "#10913", _pods("emptyDirMounts")),
    Feature("a limit of parallel iterations", (2, 5, 0), "#10798", _tasks(lambda task, _: "iteratorPolicy" in task)),
    Feature("node affinity", (2, 14, 0), "#12028", _pods("nodeAffinity")),
    Feature("a workspace volume", (2, 14, 0), "#11982", _pipeline("workspace")),
    Feature(
        "the final status of a task",
        (2, 14, 0),
        "#11953",
        _tasks(lambda _, component: "TASK_FINAL_STATUS" in _parameter_types(component)),
    ),
    Feature(
        "task configuration passed on (TaskConfig)",
        (2, 15, 0),
        "2.15.0",
        _tasks(lambda _, component: component.get("taskConfigPassthroughs")),
    ),
    Feature("security contexts", (2, 16, 0), "#12832", _pods("securityContext")),
    Feature(
        "a time to live or deadline of the run",
        (2, 17, 0),
        "2.17.0",
        _pipeline("resourceTtlOnCompletion", "resourceTtlOnSuccess", "resourceTtlOnFailure", "activeDeadlineSeconds"),
    ),
    Feature(
        "a cache key of one's own",
        (2, 18, 0),
        "#13762",
        _tasks(lambda task, _: task.get("cachingOptions", {}).get("cacheKey")),
    ),
)

PLUGINS_SINCE: Version = (2, 17, 0)
"""First server whose runs take `plugins_input` (KEP-12862)."""


def parse_version(tag: str) -> Version | None:
    """A server's tag as numbers, None where it names no release (`unknown`, a branch)."""
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", tag)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def beyond(ir: IR, server: Version) -> Iterator[Feature]:
    """What the pipeline uses and the server does not know, the newest first."""
    missing = [feature for feature in FEATURES if feature.since > server and feature.used(ir)]
    yield from sorted(missing, key=lambda feature: feature.since, reverse=True)
