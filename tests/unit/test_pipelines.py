"""The compiled pipelines: valid, complete, and unchanged unless their golden files say so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from m4rag.errors import CheckFailed, UsageError
from pipelines import NAMES
from pipelines.compiled import check_spec, compile_to, require_pinned, unpinned
from pipelines.ir import IR, Task, read

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "pipelines"
PINNED = f"registry.example/m4rag-python@sha256:{'0' * 64}"
RUN_PARAMETERS_BYTES = 10_000
"""What the API server takes for a run unless MAX_PARAMETER_BYTES says otherwise."""
WORKFLOW_BYTES = 1 << 20
"""What etcd takes for an object, with room for what Kubeflow adds."""


@pytest.fixture(scope="module", params=NAMES)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_to(request.param, tmp_path_factory.mktemp("ir"))


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pipelines as a site compiles them: its own image by digest, a claim for the work, two models at once."""
    folder = tmp_path_factory.mktemp("site")
    site = {"M4RAG_IMAGE": PINNED, "M4RAG_HOME_CLAIM": "m4rag-home", "M4RAG_MODELS_AT_ONCE": "2"}
    command = [sys.executable, "-m", "m4rag.cli", "pipeline", "compile", "--all", "--output", str(folder)]
    done = subprocess.run(command, env={**os.environ, **site}, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def steps(ir: IR) -> list[Task]:
    """Every task that runs a container."""
    return [task for task in ir.tasks() if task.executor]


def masked(path: Path) -> str:
    """The IR without what changes on every edit of a step's body or of kfp."""
    ir = read(path)
    ir.spec["sdkVersion"] = "masked"
    for executor in ir.spec["deploymentSpec"]["executors"].values():
        executor["container"]["command"][-1] = "masked"
    return yaml.safe_dump_all([ir.spec, ir.platform], sort_keys=True, allow_unicode=True)


def promises(path: Path) -> str:
    """Caching, retries, time limit and resources of every step, a line each."""
    ir = read(path)
    lines = []
    for task in steps(ir):
        cached = "pure" if task.task["cachingOptions"].get("enableCache") else "effect"
        retries = task.task.get("retryPolicy", {}).get("maxRetryCount", 0)
        resources = ir.container(task.executor)["resources"]
        hours = int(ir.pod(task.executor)["activeDeadlineSeconds"]) / 3600
        lines.append(
            f"{task.path}: {cached}, {retries} retries, {hours:g} h, cpu {resources['resourceCpuRequest']} to "
            f"{resources['resourceCpuLimit']}, memory {resources['resourceMemoryRequest']} to "
            f"{resources['resourceMemoryLimit']}"
        )
    return "\n".join(lines) + "\n"


def same(golden: Path, text: str) -> None:
    if os.environ.get("M4RAG_REGENERATE") == "1":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8"), "make golden, then review the diff"


def test_golden_ir(compiled: Path) -> None:
    same(GOLDEN / compiled.name, masked(compiled))


def test_golden_promises(compiled: Path) -> None:
    same(GOLDEN / f"{compiled.stem}.promises.txt", promises(compiled))


def test_the_file_is_a_pipeline_spec(compiled: Path) -> None:
    spec = check_spec(compiled)
    assert spec.pipeline_info.name == f"m4rag-{compiled.stem.replace('_', '-')}"
    executors = read(compiled).spec["deploymentSpec"]["executors"]
    assert {task.executor for task in steps(read(compiled))} == executors.keys()


def test_a_file_that_is_not_a_pipeline_spec_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("pipelineInfo: {nmae: x}\n")
    with pytest.raises(CheckFailed, match="nmae"):
        check_spec(tmp_path / "x.yaml")


def test_every_step_has_limits_a_time_limit_and_installs_nothing(compiled: Path) -> None:
    ir = read(compiled)
    for task in steps(ir):
        container, pod = ir.container(task.executor), ir.pod(task.executor)
        assert {"resourceCpuLimit", "resourceMemoryLimit"} <= container["resources"].keys(), task.path
        assert "pip install" not in " ".join(container["command"]), task.path
        assert int(pod["activeDeadlineSeconds"]) > 0, task.path
        assert pod["securityContext"]["runAsNonRoot"] is True, task.path


@pytest.mark.parametrize("name", NAMES)
def test_a_site_compiles_with_its_image_and_its_claim(configured: Path, name: str) -> None:
    ir = read(configured / f"{name}.yaml")
    assert unpinned(configured / f"{name}.yaml") == []
    for task in steps(ir):
        assert ir.container(task.executor)["image"] == PINNED
        if "vlm" not in task.path:
            (mount,) = ir.pod(task.executor)["pvcMount"]
            assert (mount["constant"], mount["mountPath"]) == ("m4rag-home", "/m4rag")


def test_steps_that_cost_gpu_hours_are_retried_only_where_their_work_is_kept(configured: Path, tmp_path: Path) -> None:
    def retried(path: Path) -> dict[str, bool]:
        return {
            task.path.rpartition("/")[2]: "retryPolicy" in task.task
            for task in steps(read(path))
            if task.path.endswith(("run-benchmark", "judge", "deploy-vlm"))
        }

    names = {"run-benchmark", "judge", "deploy-vlm"}
    assert retried(compile_to("benchmark", tmp_path)) == dict.fromkeys(names, False)
    assert retried(configured / "benchmark.yaml") == {"run-benchmark": True, "judge": True, "deploy-vlm": False}


def test_as_many_models_at_once_as_the_site_says(configured: Path) -> None:
    loops = [task.task for task in read(configured / "benchmark.yaml").tasks() if "iteratorPolicy" in task.task]
    assert [loop["iteratorPolicy"]["parallelismLimit"] for loop in loops] == [2]


def test_an_image_by_tag_is_named_and_refused_for_a_launch(compiled: Path, tmp_path: Path) -> None:
    require_pinned(compiled)
    tagged = tmp_path / compiled.name
    tagged.write_text(compiled.read_text().replace(PINNED, "registry.example/m4rag-python:0.1.0"))
    assert unpinned(tagged) == ["registry.example/m4rag-python:0.1.0"]
    with pytest.raises(UsageError, match=r"m4rag-python:0\.1\.0, which a tag can move.*Set M4RAG_IMAGE"):
        require_pinned(tagged)


def test_what_is_deployed_is_removed_whatever_happens(tmp_path: Path) -> None:
    """Every step that a deployment exists for is in the handler; the exit task is outside, uncached and always runs."""
    ir = read(compile_to("benchmark", tmp_path))
    deployed = next(task for task in steps(ir) if task.path.endswith("deploy-vlm"))
    inside = {task.path.rpartition("/")[2] for task in steps(ir) if task.graph == deployed.graph}
    assert inside == {"deploy-vlm", "run-benchmark", "judge", "score", "fit-policy", "register"}
    before = {task.path for task in steps(ir) if "/" not in task.path}
    assert before == {"plan-benchmark", "fingerprint", "ingest"}, "nothing that changes the world is outside"

    removal = next(task for task in steps(ir) if task.path.endswith("remove-vlm"))
    assert removal.graph == deployed.graph.rpartition("/")[0]
    assert removal.task["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert removal.task["dependentTasks"] == [deployed.graph.rpartition("/")[2]]
    assert removal.task["cachingOptions"].get("enableCache", False) is False
    one, other = deployed.task["inputs"]["parameters"], removal.task["inputs"]["parameters"]
    assert one["run"] == other["run"] == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}


def test_a_model_goes_where_its_profile_says_and_the_step_that_waits_does_not(tmp_path: Path) -> None:
    ir = read(compile_to("benchmark", tmp_path))
    (deployed,) = (task for task in steps(ir) if task.path.endswith("deploy-vlm"))
    passed = {entry["field"]: entry.get("applyToTask", False) for entry in deployed.component["taskConfigPassthroughs"]}
    assert passed == {"KUBERNETES_NODE_SELECTOR": False, "KUBERNETES_TOLERATIONS": False, "RESOURCES": True}
    pod = ir.pod(deployed.executor)
    assert pod["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"].endswith("node_selector")
    assert pod["tolerations"][0]["tolerationJson"]["componentInputParameter"].endswith("tolerations")
    assert ir.container(deployed.executor)["resources"]["resourceCpuRequest"] == "50m"


def test_only_steps_that_metadata_calls_cached_are_cached(compiled: Path) -> None:
    folders = {path.parent.name: path for path in (GOLDEN.parents[2] / "components").glob("*/*/metadata.yaml")}
    for task in steps(read(compiled)):
        told = yaml.safe_load(folders[task.path.rpartition("/")[2].replace("-", "_")].read_text())
        assert task.task["cachingOptions"].get("enableCache", False) is told["cached"], task.path


def test_it_is_small_enough(compiled: Path) -> None:
    assert compiled.stat().st_size < WORKFLOW_BYTES
    defaults = {name: spec.get("defaultValue") for name, spec in read(compiled).inputs.items()}
    assert len(json.dumps(defaults)) < RUN_PARAMETERS_BYTES / 4, "most of the room is for the user's own"


def test_no_address_and_no_secret_is_a_parameter(compiled: Path) -> None:
    words = ("token", "key", "secret", "uri", "url")
    assert not [name for name in read(compiled).inputs if any(word in name for word in words)]


def test_an_unknown_pipeline_is_named_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no pipeline 'relase'\. There are: build_index"):
        compile_to("relase", tmp_path)


def shipped_config_map() -> dict[str, Any]:
    rendered = (GOLDEN.parents[2] / "manifests" / "base" / "m4rag.yaml").read_text()
    found: dict[str, Any]
    (found,) = (
        each
        for each in yaml.safe_load_all(rendered)
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "m4rag"
    )
    return found


def test_the_shipped_config_map_is_the_one_that_steps_read(compiled: Path) -> None:
    manifest = shipped_config_map()
    ir = read(compiled)
    for task in steps(ir):
        (source,) = ir.pod(task.executor)["configMapAsEnv"]
        assert source["configMapName"] == manifest["metadata"]["name"], task.path
        assert {pair["configMapKey"] for pair in source["keyToEnv"]} >= manifest["data"].keys(), task.path


def test_a_home_in_the_config_map_is_where_steps_keep_their_work(compiled: Path) -> None:
    manifest = shipped_config_map()
    ir = read(compiled)
    mounted = {mount["mountPath"] for task in steps(ir) for mount in ir.pod(task.executor).get("emptyDirMounts", ())}
    assert mounted == {manifest["data"]["M4RAG_HOME"]}
