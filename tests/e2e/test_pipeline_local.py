"""The compiled benchmark pipeline, run by kfp.local, leaves the record that the command line leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from m4rag import models

pytestmark = pytest.mark.vllm

LIMIT = 40
"""Ten images, the fewest that a policy is learned from."""
MULTIMODAL = f"multimodal:{models.EMBED}"
SETTINGS = ("no_rag", "oracle", MULTIMODAL)
CHOICES = {"prompt_language": "native", "context_language": "native", "option_order": 7}


def m4rag(home: Path, urls: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "m4rag.cli", *arguments],
        env={**os.environ, **urls, "M4RAG_HOME": str(home), "M4RAG_VLM_CONCURRENCY": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done


def recorded(home: Path) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return run


def scores(metrics: dict[str, float]) -> dict[str, float]:
    """All but the times, which no two executions share."""
    return {name: value for name, value in metrics.items() if not name.startswith("latency")}


@pytest.mark.timeout(1800)
def test_pipeline_and_command_line_leave_the_same_record(
    tmp_path: Path, vlm_server: Any, embedding_server: Any
) -> None:
    urls = {"M4RAG_VLM_URL": vlm_server.url, "M4RAG_EMBEDDING_URL": embedding_server.url}
    cli, pipeline = tmp_path / "cli", tmp_path / "pipeline"
    options = [word for setting in SETTINGS for word in ("--setting", setting)]
    for name, choice in CHOICES.items():
        options += [f"--{name.replace('_', '-')}", str(choice)]
    m4rag(cli, urls, "corpus", "ingest", "--source", "sample")
    m4rag(cli, urls, "index", "build", "sample", "--base", "sample_vision", "--encoder", "vllm")
    run = json.loads(m4rag(cli, urls, "bench", "run", "--limit", str(LIMIT), *options, "--json").stdout)["run"]
    m4rag(cli, urls, "policy", "fit", run)
    m4rag(cli, urls, "bench", "record", run)

    def run_local(name: str, **parameters: Any) -> str:
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
        return m4rag(pipeline, urls, "pipeline", "run-local", name, *words).stderr

    run_local("build_index", base="sample_vision", encoder="vllm")
    done = run_local("benchmark", limit=LIMIT, settings=json.dumps(SETTINGS), **CHOICES)
    assert "register: success" in done

    one, other = recorded(cli).data, recorded(pipeline).data
    assert scores(one.metrics) == scores(other.metrics)
    assert len(scores(one.metrics)) > 20
    differing = {
        name for name in one.params.keys() | other.params.keys() if one.params.get(name) != other.params.get(name)
    }
    assert differing <= {"command"}
    assert one.tags["m4rag.run_digest"] == other.tags["m4rag.run_digest"]
    policy = f"m4rag.policy_digest.{MULTIMODAL.replace(':', '_')}"
    assert one.tags[policy] == other.tags[policy]
    assert (other.params["prompts.language"], other.params["prompts.option_order"]) == ("native", "7")


def test_a_failing_step_is_reported_by_its_own_error_before_anything_is_asked(tmp_path: Path, vlm_server: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "m4rag.cli", "pipeline", "run-local", "benchmark", "-p", 'settings=["magic"]'],
        env={**os.environ, "M4RAG_HOME": str(tmp_path), "M4RAG_VLM_URL": vlm_server.url},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 1
    assert "unknown setting 'magic'" in done.stderr.splitlines()[-1]
    assert "local-run.log" in done.stderr.splitlines()[-1]
    assert "plan-benchmark: failure" in done.stderr
    assert "run-benchmark" not in done.stderr
