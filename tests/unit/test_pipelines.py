"""The compiled pipelines: valid, complete, and unchanged unless their golden files say so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from m4rag.errors import CheckFailed, UsageError
from pipelines import NAMES
from pipelines.compiled import check_spec, compile_to

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "pipelines"


@pytest.fixture(scope="module", params=NAMES)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_to(request.param, tmp_path_factory.mktemp("ir"))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def executors(path: Path) -> dict[str, Any]:
    return documents(path)[0]["deploymentSpec"]["executors"]


def masked(path: Path) -> str:
    """The IR without what changes on every edit of a step's body or of kfp."""
    spec, platform = documents(path)
    spec["sdkVersion"] = "masked"
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"]["command"][-1] = "masked"
    return yaml.safe_dump_all([spec, platform], sort_keys=True, allow_unicode=True)


def test_golden_ir(compiled: Path) -> None:
    golden = GOLDEN / compiled.name
    if os.environ.get("M4RAG_REGENERATE") == "1":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(masked(compiled), encoding="utf-8")
    assert masked(compiled) == golden.read_text(encoding="utf-8"), "make golden, then review the diff"


def test_the_file_is_a_pipeline_spec(compiled: Path) -> None:
    spec = check_spec(compiled)
    assert spec.pipeline_info.name == f"m4rag-{compiled.stem.replace('_', '-')}"
    assert len(spec.components) == len(executors(compiled))


def test_a_file_that_is_not_a_pipeline_spec_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("pipelineInfo: {nmae: x}\n")
    with pytest.raises(CheckFailed, match="nmae"):
        check_spec(tmp_path / "x.yaml")


def test_every_step_has_limits_a_timeout_and_installs_nothing(compiled: Path) -> None:
    platform = documents(compiled)[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name, executor in executors(compiled).items():
        container = executor["container"]
        assert {"resourceCpuLimit", "resourceMemoryLimit"} <= container["resources"].keys(), name
        assert "pip install" not in " ".join(container["command"]), name
        assert int(platform[name]["activeDeadlineSeconds"]) > 0, name
        assert platform[name]["securityContext"]["runAsNonRoot"] is True, name


def test_only_steps_without_effects_are_cached(compiled: Path) -> None:
    tasks = documents(compiled)[0]["root"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert cached == {"ingest-corpus", "fit-policy"} & tasks.keys()


def test_no_address_and_no_secret_is_a_parameter(compiled: Path) -> None:
    parameters = documents(compiled)[0]["root"]["inputDefinitions"]["parameters"]
    assert not [name for name in parameters if any(word in name for word in ("token", "key", "secret", "uri", "url"))]


def test_an_unknown_pipeline_is_named_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no pipeline 'relase'\. There are: build_index"):
        compile_to("relase", tmp_path)


def test_the_shipped_config_map_is_the_one_that_steps_read(compiled: Path) -> None:
    manifest = yaml.safe_load((GOLDEN.parents[2] / "manifests" / "base" / "configmap.yaml").read_text())
    platform = documents(compiled)[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name, executor in platform.items():
        (source,) = executor["configMapAsEnv"]
        assert source["configMapName"] == manifest["metadata"]["name"], name
        assert {pair["configMapKey"] for pair in source["keyToEnv"]} == manifest["data"].keys(), name
