"""A compiled pipeline as data: what is uploaded, and the name under which it can't change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """One task of a graph.

    Attributes:
        path: Its name, with the names of the graphs around it: `for-loop-1/run-benchmark`.
        task: The task as the graph has it: inputs, caching, retries.
        component: The component it runs.
        executor: Key of its container; empty for a graph.
    """

    path: str
    task: dict[str, Any]
    component: dict[str, Any]
    executor: str

    @property
    def graph(self) -> str:
        """Path of the graph it is in; empty for the pipeline itself."""
        return self.path.rpartition("/")[0]

    def inside(self, name: str) -> str:
        """Path of another task of the same graph."""
        return f"{self.graph}/{name}" if self.graph else name


@dataclass(frozen=True)
class IR:
    """The two documents of a compiled file.

    Attributes:
        spec: The `PipelineSpec`.
        platform: What Kubernetes needs for it: volumes, secrets, time limits; empty without any.
    """

    spec: dict[str, Any]
    platform: dict[str, Any]

    @property
    def name(self) -> str:
        """The pipeline's name on the server."""
        return str(self.spec["pipelineInfo"]["name"])

    @property
    def version(self) -> str:
        """`<pipeline>-<12 hex digits of the content>`: versions can't be edited, so content names them."""
        text = json.dumps([self.spec, self.platform], sort_keys=True, ensure_ascii=False)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """The pipeline's parameters and their definitions."""
        return dict(self.spec["root"].get("inputDefinitions", {}).get("parameters", {}))

    @property
    def kubernetes(self) -> dict[str, Any]:
        """The Kubernetes part of the platform document."""
        return dict(self.platform.get("platforms", {}).get("kubernetes", {}))

    def container(self, executor: str) -> dict[str, Any]:
        """Image, command and environment of an executor; empty for an importer."""
        return dict(self.spec["deploymentSpec"]["executors"][executor].get("container", {}))

    def pod(self, executor: str) -> dict[str, Any]:
        """What the platform document adds to an executor's pod."""
        return dict(self.kubernetes.get("deploymentSpec", {}).get("executors", {}).get(executor, {}))

    def tasks(self) -> Iterator[Task]:
        """Every task of the pipeline and of the graphs inside it, in the order of their names."""
        yield from self._tasks(self.spec["root"], "")

    def _tasks(self, graph: dict[str, Any], path: str) -> Iterator[Task]:
        for name, task in sorted(graph["dag"]["tasks"].items()):
            component = self.spec["components"][task["componentRef"]["name"]]
            yield Task(f"{path}{name}", task, component, component.get("executorLabel", ""))
            if "dag" in component:
                yield from self._tasks(component, f"{path}{name}/")


def read(path: Path) -> IR:
    """The IR of a file that `compile_to` wrote and checked."""
    import yaml

    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    return IR(documents[0], documents[1] if len(documents) > 1 else {})
