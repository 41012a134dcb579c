"""The compiled benchmark pipeline, run by kfp.local, leaves the record that the command line leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.vllm

LIMIT = 24
SETTINGS = ("no_rag", "oracle", "oracle_query")


def m4rag(home: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "m4rag.cli", *arguments],
        env={**os.environ, "M4RAG_HOME": str(home), "M4RAG_VLM_URL": url, "M4RAG_VLM_CONCURRENCY": "1"},
        capture_output=True,
        text=True,
        timeout=400,
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


def test_pipeline_and_command_line_leave_the_same_record(tmp_path: Path, vlm_server: Any) -> None:
    settings = [word for setting in SETTINGS for word in ("--setting", setting)]
    url, cli, pipeline = vlm_server.url, tmp_path / "cli", tmp_path / "pipeline"
    m4rag(cli, url, "corpus", "ingest", "--source", "sample")
    m4rag(cli, url, "index", "build", "sample")
    m4rag(cli, url, "bench", "run", "--limit", str(LIMIT), *settings)

    parameters = ["-p", f"limit={LIMIT}", "-p", "settings=" + str(list(SETTINGS)).replace("'", '"')]
    done = m4rag(pipeline, url, "pipeline", "run-local", "benchmark", *parameters)
    assert "record-run: success" in done.stderr

    one, other = recorded(cli).data, recorded(pipeline).data
    assert scores(one.metrics) == scores(other.metrics)
    assert len(scores(one.metrics)) > 20
    differing = {
        name for name in one.params.keys() | other.params.keys() if one.params.get(name) != other.params.get(name)
    }
    assert differing <= {"command"}
    assert one.tags["m4rag.run_digest"] == other.tags["m4rag.run_digest"]


def test_a_failing_step_is_reported_by_its_own_error(tmp_path: Path, vlm_server: Any) -> None:
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
