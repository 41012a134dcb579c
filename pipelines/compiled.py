"""Pipelines as IR YAML: written, checked against the pipeline spec, and run on this machine."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from m4rag.errors import BadData, CheckFailed, UsageError
from pipelines import NAMES, pipeline

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
ERROR = re.compile(r"^\s*m4rag\.errors\.\w+: (?P<message>.+)$", re.MULTILINE)


def compile_to(name: str, folder: Path) -> Path:
    """Compile one pipeline to `<folder>/<name>.yaml` and check that the file is a valid pipeline spec.

    Raises:
        UsageError: There is no such pipeline.
        CheckFailed: The compiled file does not parse as a `PipelineSpec`.
    """
    from kfp import compiler

    if name not in NAMES:
        raise UsageError(f"no pipeline {name!r}", remedy=f"There are: {', '.join(NAMES)}.")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    compiler.Compiler().compile(pipeline(name), str(path))
    check_spec(path)
    return path


def check_spec(path: Path) -> Any:
    """The `PipelineSpec` message of a compiled file.

    Raises:
        CheckFailed: The file does not parse as one.
    """
    import yaml
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    document = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    try:
        return json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        raise CheckFailed(f"not a pipeline spec: {error}", where=str(path)) from None


def require_pinned(path: Path) -> None:
    """Refuse a compiled pipeline whose steps may run another image tomorrow.

    Raises:
        UsageError: A step's image is named by tag; names the image.
    """
    if images := unpinned(path):
        raise UsageError(
            f"the steps' image is {images[0]}, which a tag can move",
            where=str(path),
            remedy="Set M4RAG_IMAGE to registry/name@sha256:<digest>, and compile again.",
        )


def unpinned(path: Path) -> list[str]:
    """The images of a compiled pipeline that are not named by digest."""
    from pipelines.ir import read

    executors = read(path).spec["deploymentSpec"]["executors"].values()
    images = {executor["container"]["image"] for executor in executors if "container" in executor}
    return sorted(image for image in images if not DIGEST.search(image))


def run_local(path: Path, arguments: dict[str, Any], root: Path) -> None:
    """Run a compiled pipeline on this machine with kfp.local: every step a subprocess in this environment.

    Args:
        path: The compiled file.
        arguments: Pipeline parameters.
        root: Folder for the artifacts and `local-run.log`.

    Raises:
        BadData: An argument that the pipeline does not have.
        CheckFailed: A step failed; the message is the step's own error line.
    """
    from kfp import components, local

    root.mkdir(parents=True, exist_ok=True)
    log = root / "local-run.log"
    runnable = components.load_component_from_text(_for_one_machine(path))
    unknown = arguments.keys() - (runnable.component_spec.inputs or {}).keys()
    if unknown:
        raise BadData(f"the pipeline has no parameter {sorted(unknown)[0]!r}", where=path.stem)
    # kfp removes the workspace folder after a run, so it gets one of its own.
    with (
        tempfile.TemporaryDirectory() as workspace,
        log.open("w", encoding="utf-8") as stream,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message=".*have no effect in the current local runner")  # limits are for pods
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(root),
            workspace_root=str(Path(workspace) / "workspace"),
        )
        output = _Tee(stream)
        try:
            with contextlib.redirect_stdout(output):
                runnable(**arguments)
        except RuntimeError as error:
            messages = ERROR.findall(log.read_text(encoding="utf-8"))
            raise CheckFailed(
                messages[-1].strip() if messages else str(error),
                where=f"pipeline {path.stem}",
                remedy=f"The log is {log}.",
            ) from None


def _for_one_machine(path: Path) -> str:
    """The compiled file without retries, which wait minutes for lost pods, and with one iteration at a time.

    An embedded Milvus serves one process, and models share the machine's cores.
    """
    import yaml

    spec, *platform = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    for graph in [spec["root"], *spec["components"].values()]:
        for task in graph.get("dag", {}).get("tasks", {}).values():
            task.pop("retryPolicy", None)
            if "iteratorPolicy" in task:
                task["iteratorPolicy"]["parallelismLimit"] = 1
    return str(yaml.safe_dump_all([spec, *platform], allow_unicode=True))


class _Tee(io.TextIOBase):
    """Writes everything to the log and one line per task state to stderr."""

    STATE = re.compile(r"(Executing task|Task) \S*'(?P<task>[\w-]+)'\S*( finished with status \S*?(?P<state>[A-Z]+))?")

    def __init__(self, log: io.TextIOBase | Any) -> None:
        self._log = log

    def write(self, text: str) -> int:
        self._log.write(text)
        self._log.flush()
        for line in text.splitlines():
            if (match := self.STATE.search(line)) and "outputs" not in line:
                print(f"{match['task']}: {(match['state'] or 'running').lower()}", file=sys.stderr, flush=True)
        return len(text)
