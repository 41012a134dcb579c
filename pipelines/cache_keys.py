"""What the cache of Kubeflow Pipelines looks at, task by task, and what it does not see.

The key of a task: ids of its input artifacts, values of its input parameters, names and types of its outputs, command
and arguments (which hold the source of a step), the image as it is written, and the names of its volume claims. It is
looked up under the pipeline's name, without an expiry. Nothing else counts: no environment, secret, config map, volume
content or resource.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.ir import IR, Task

CHANGING = ("{{$.pipeline_job_", "{{$.pipeline_task_uuid", "{{$.workspace_path", "{{$.pipeline_root")
"""Placeholders with another value in every run."""

_ENVIRONMENT = ("configMapAsEnv", "secretAsEnv", "fieldPathAsEnv")
_FILES = ("configMapAsVolume", "secretAsVolume", "emptyDirMounts", "genericEphemeralVolume")


@dataclass(frozen=True)
class CacheKey:
    """What one task's key depends on.

    Attributes:
        task: Its path.
        cached: Whether the server looks for an earlier result at all.
        inputs: Each input and where it comes from.
        image: The image as it is written.
        source: First 12 hex digits of the digest of command and arguments.
        claims: Names of volume claims.
        warnings: Changes that the key misses, and what keeps it from ever hitting.
    """

    task: str
    cached: bool
    inputs: tuple[str, ...]
    image: str
    source: str
    claims: tuple[str, ...]
    warnings: tuple[str, ...]


def cache_keys(ir: IR) -> tuple[CacheKey, ...]:
    """The keys of all tasks that run a container, in the order of their paths."""
    tasks = {task.path: task for task in ir.tasks()}
    return tuple(_key(ir, task, tasks) for task in tasks.values() if task.executor and ir.container(task.executor))


def _key(ir: IR, task: Task, tasks: dict[str, Task]) -> CacheKey:
    container, pod = ir.container(task.executor), ir.pod(task.executor)
    command = json.dumps([container.get("command", []), container.get("args", [])])
    cached = _cached(task)
    inputs = task.task.get("inputs", {})
    named = {**inputs.get("parameters", {}), **inputs.get("artifacts", {})}
    return CacheKey(
        task=task.path,
        cached=cached,
        inputs=tuple(f"{name} <- {_source(source)}" for name, source in sorted(named.items())),
        image=str(container["image"]),
        source=hashlib.sha256(command.encode()).hexdigest()[:12],
        claims=tuple(_claim(mount) for mount in pod.get("pvcMount", [])),
        warnings=tuple(_warnings(task, tasks, container, pod)) if cached else (),
    )


def _cached(task: Task) -> bool:
    return bool(task.task.get("cachingOptions", {}).get("enableCache"))


def _warnings(task: Task, tasks: dict[str, Task], container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    if "@sha256:" not in container["image"]:
        yield f"image {container['image']} is no digest: another image under this name has the same key"
    variables = [variable["name"] for variable in container.get("env", [])]
    variables += [
        pair["envVar"] for field in _ENVIRONMENT for source in pod.get(field, []) for pair in source.get("keyToEnv", [])
    ]
    variables += [source["name"] for source in pod.get("fieldPathAsEnv", [])]
    if variables:
        yield f"environment is not in the key: {', '.join(sorted(variables))}"
    mounts = [mount["mountPath"] for field in _FILES for mount in pod.get(field, []) if "mountPath" in mount]
    if mounts:
        yield f"files are not in the key: {', '.join(sorted(mounts))}"
    if pod.get("pvcMount"):
        names = ", ".join(_claim(mount) for mount in pod["pvcMount"])
        yield f"of volume {names} only the name is in the key: neither what is on it nor what the step wrote there"
    if task.task["cachingOptions"].get("cacheKey"):
        yield "a cache key of its own takes the place of all this, from server 2.18 on; older ones ignore it"
    for name, why in _changing(task, tasks, frozenset()):
        yield f"never hits: {name} {why}"


def _changing(task: Task, tasks: dict[str, Task], above: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Inputs that are other ones in every run, and why."""
    inputs = task.task.get("inputs", {})
    for name, source in sorted(inputs.get("parameters", {}).items()):
        value = source.get("runtimeValue", {}).get("constant")
        if isinstance(value, str) and any(placeholder in value for placeholder in CHANGING):
            yield name, f"is {value}, another value in every run"
    for name, source in sorted(inputs.get("artifacts", {}).items()):
        for producer in _producers(task, source, tasks):
            if producer.path in above:
                continue
            if not _cached(producer):
                yield name, f"comes from {producer.path}, which is not cached: another artifact in every run"
            elif any(_changing(producer, tasks, above | {task.path})):
                yield name, f"comes from {producer.path}, which never hits itself"


def _producers(task: Task, source: dict[str, Any], tasks: dict[str, Task]) -> Iterator[Task]:
    """The tasks with a container that make an artifact."""
    if "componentInputArtifact" in source:
        outer = tasks.get(task.graph)
        given = outer.task.get("inputs", {}).get("artifacts", {}) if outer else {}
        if outer and source["componentInputArtifact"] in given:
            yield from _producers(outer, given[source["componentInputArtifact"]], tasks)
        return
    output = source.get("taskOutputArtifact", {})
    if output:
        yield from _made_by(tasks[task.inside(output["producerTask"])], output["outputArtifactKey"], tasks)


def _made_by(task: Task, output: str, tasks: dict[str, Task]) -> Iterator[Task]:
    if "dag" not in task.component:
        yield task
        return
    selected = task.component["dag"].get("outputs", {}).get("artifacts", {}).get(output, {})
    for selector in selected.get("artifactSelectors", []):
        inner = tasks[f"{task.path}/{selector['producerSubtask']}"]
        yield from _made_by(inner, selector["outputArtifactKey"], tasks)


def _source(source: dict[str, Any]) -> str:
    if "runtimeValue" in source:
        return json.dumps(source["runtimeValue"].get("constant"), ensure_ascii=False)
    if "taskOutputParameter" in source:
        return f"{source['taskOutputParameter']['producerTask']}.{source['taskOutputParameter']['outputParameterKey']}"
    if "taskOutputArtifact" in source:
        output = source["taskOutputArtifact"]
        return f"{output['producerTask']}.{output['outputArtifactKey']} (artifact id)"
    for key, what in (("componentInputParameter", "parameter"), ("componentInputArtifact", "artifact id of")):
        if key in source:
            return f"{what} {source[key]}"
    return "the run" if "taskFinalStatus" in source else json.dumps(source)


def _claim(mount: dict[str, Any]) -> str:
    if "constant" in mount:
        return str(mount["constant"])
    named = mount.get("pvcNameParameter", mount)
    return _source(named) if named is not mount else "of an earlier task"
