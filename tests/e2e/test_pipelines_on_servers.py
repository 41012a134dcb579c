"""The compiled pipelines by kfp.local on servers of the test's own: an index in shards; a model that is deployed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from content_server import NUMBERED, model_server, preferred
from integration.control_plane import ControlPlane
from integration.kserve_player import playing

from m4rag.bench.judgements import read_verdicts
from m4rag.bench.runs import RunPlan
from m4rag.deploy import catalog
from m4rag.manifests import Manifest

MODEL, OTHER = "qwen2-5-vl-7b", "qwen2-5-vl-3b"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
IMAGE = f"registry.example/vllm@sha256:{'0' * 64}"
SETTINGS = ["no_rag", "oracle"]


def run_local(
    name: str, home: Path, environment: dict[str, str], **parameters: Any
) -> subprocess.CompletedProcess[str]:
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in parameters.items()}
    words = [word for key, text in texts.items() for word in ("-p", f"{key}={text}")]
    return subprocess.run(
        [sys.executable, "-m", "m4rag.cli", "pipeline", "run-local", name, *words],
        env={**os.environ, **environment, "M4RAG_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=900,
    )


def log(home: Path, name: str) -> str:
    return (home / "pipelines" / name / "local-run.log").read_text()


def answer(body: dict[str, Any]) -> str:
    """An option by its words; of a judge the score 4; of a picture alone a word."""
    content = body["messages"][0]["content"]
    prompt = content if isinstance(content, str) else content[-1]["text"]
    if "response_format" not in body and "structured_outputs" not in body:
        return "Red."
    options = NUMBERED.findall(prompt)
    return json.dumps({"explanation": "", "answer": 4 if "Rubric" in prompt else preferred(options) + 1})


@pytest.fixture(scope="module")
def models() -> Iterator[str]:
    with model_server(answer, catalog.model(MODEL).served_name) as url:
        yield url


@pytest.mark.timeout(1200)
def test_an_index_is_built_in_shards_and_only_what_is_missing_is_built_again(tmp_path: Path) -> None:
    done = run_local("build_index", tmp_path, {}, shards=2, queries="sample", promote=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("embed-shard: success") == 2
    assert "promote-index: success" in done.stderr
    vectors = [folder for folder in (tmp_path / "index").glob("vectors-*") if folder.is_dir()]
    (chunks,) = (tmp_path / "index").glob("chunks-*")
    assert sum(Manifest.read(folder).rows for folder in vectors) == Manifest.read(chunks).rows
    kept = {folder: folder.stat().st_mtime_ns for folder in vectors}

    lost = vectors[0]
    for file in lost.iterdir():
        file.unlink()
    again = run_local("build_index", tmp_path, {}, shards=2)
    assert again.returncode == 0, again.stderr
    assert "promote-index" not in again.stderr
    assert vectors[1].stat().st_mtime_ns == kept[vectors[1]], "a shard that is there is not embedded again"
    assert Manifest.read(lost).rows > 0
    assert '"written": 0' in log(tmp_path, "build_index").replace("0.0", "0")


@pytest.fixture(scope="module")
def measured(models: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a run by the model of M4RAG_VLM_URL."""
    home = tmp_path_factory.mktemp("by-url")
    done = run_local("benchmark", home, {"M4RAG_VLM_URL": models}, limit=40, settings=SETTINGS, judge="shown")
    assert done.returncode == 0, done.stderr
    return home


@pytest.mark.timeout(1200)
def test_a_model_by_address_is_measured_and_nothing_is_deployed(measured: Path) -> None:
    (run,) = (measured / "runs").iterdir()
    assert RunPlan.read(run).settings == tuple(SETTINGS)
    assert {verdict.score for verdict in read_verdicts(run).values()} == {4}
    assert "InferenceService" not in log(measured, "benchmark")


@pytest.mark.timeout(1200)
def test_a_deployed_model_gives_the_same_answers_and_is_gone_in_the_end(
    control_plane: ControlPlane, namespace: str, models: str, measured: Path, tmp_path: Path
) -> None:
    wanted = {"model": MODEL, "uri": f"{catalog.model(MODEL).uri}:{COMMIT}"}
    cluster = {"KUBECONFIG": str(control_plane.kubeconfig("admin", namespace)), "M4RAG_VLLM_IMAGE": IMAGE}
    with playing(control_plane, namespace, models.removesuffix("/v1")) as player:
        done = run_local("benchmark", tmp_path, cluster, models=[wanted], limit=40, settings=SETTINGS, judge="shown")
    assert done.returncode == 0, done.stderr + log(tmp_path, "benchmark")[-4000:]
    assert player.pods == 1
    assert done.stderr.index("register: success") < done.stderr.index("remove-vlm: success")
    assert services(control_plane, namespace) == []
    (one,), (other,) = ((home / "runs").iterdir() for home in (measured, tmp_path))
    assert Manifest.read(one / "answers").digest == Manifest.read(other / "answers").digest


@pytest.mark.timeout(1200)
def test_a_model_is_removed_when_a_step_fails(
    control_plane: ControlPlane, namespace: str, models: str, tmp_path: Path
) -> None:
    wanted = {"model": MODEL, "uri": f"{catalog.model(MODEL).uri}:{COMMIT}"}
    cluster = {"KUBECONFIG": str(control_plane.kubeconfig("admin", namespace)), "M4RAG_VLLM_IMAGE": IMAGE}
    with playing(control_plane, namespace, models.removesuffix("/v1")) as player:
        done = run_local(
            "benchmark", tmp_path, cluster, models=[wanted], limit=4, settings=["caption_query"], index="absent"
        )
    assert done.returncode == 1
    assert "absent" in done.stderr.splitlines()[-1]
    assert player.pods == 1
    assert "remove-vlm: success" in done.stderr
    assert services(control_plane, namespace) == []


def test_a_wrong_model_is_refused_before_another_is_deployed(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    wanted = [{"model": MODEL, "uri": f"{catalog.model(MODEL).uri}:{COMMIT}"}, {"model": OTHER, "uri": "hf://a/b:main"}]
    cluster = {"KUBECONFIG": str(control_plane.kubeconfig("admin", namespace)), "M4RAG_VLLM_IMAGE": IMAGE}
    done = run_local("benchmark", tmp_path, cluster, models=wanted)
    assert done.returncode == 1
    assert "hf://a/b:main: names no commit" in done.stderr.splitlines()[-1]
    assert "deploy-vlm" not in done.stderr


def services(server: ControlPlane, namespace: str) -> list[str]:
    root = f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices"
    return [item["metadata"]["name"] for item in server.request("GET", root)["items"]]
