"""kill -9 of `m4rag bench run`, or of the model it asks, loses nothing and doubles nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from m4rag import models
from m4rag.bench.answers import LOG
from m4rag.manifests import Manifest
from m4rag.schema import Answer
from m4rag.shards import read_folder

pytestmark = pytest.mark.vllm

QUESTIONS = 28
SETTINGS = ("no_rag", "oracle")
COMMAND = ["-m", "m4rag.cli", "bench", "run", "--dataset", "sample", "--limit", str(QUESTIONS)] + [
    word for setting in SETTINGS for word in ("--setting", setting)
]


def start(home: Path, url: str, *, answers_at_once: int) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "M4RAG_HOME": str(home),
        "M4RAG_VLM_URL": url,
        "M4RAG_VLM_CONCURRENCY": str(answers_at_once),
    }
    return subprocess.Popen(
        [sys.executable, *COMMAND], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def answered(home: Path) -> int:
    return sum(log.read_bytes().count(b"\n") for log in home.glob(f"runs/*/answers/{LOG}"))


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def run_folder(home: Path) -> Path:
    (folder,) = (home / "runs").iterdir()
    return folder


def ingest(home: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "m4rag.cli", "corpus", "ingest", "--source", "sample"],
        env={**os.environ, "M4RAG_HOME": str(home)},
        check=True,
        capture_output=True,
    )


def test_m4rag_fault_14_a_killed_run_continues_and_equals_an_undisturbed_one(
    tmp_path: Path, vlm_server: object
) -> None:
    url: str = vlm_server.url  # type: ignore[attr-defined]
    ingest(tmp_path / "whole")
    ingest(tmp_path / "killed")
    # One request at a time: batches that differ could change a model's choice by a rounding error.
    finish(start(tmp_path / "whole", url, answers_at_once=1))

    total = QUESTIONS * len(SETTINGS)
    moments = sorted(random.Random(7).sample(range(total - 5), 5))
    for moment in moments:
        process = start(tmp_path / "killed", url, answers_at_once=1)
        while answered(tmp_path / "killed") < moment and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        assert answered(tmp_path / "killed") >= moment, "killed before the moment chosen"
    assert answered(tmp_path / "killed") < total, "nothing was left to continue"
    finish(start(tmp_path / "killed", url, answers_at_once=1))

    rows = list(read_folder(run_folder(tmp_path / "killed") / "answers", Answer))
    assert len({(row.setting, row.question_id) for row in rows}) == len(rows) == total
    whole, killed = (Manifest.read(run_folder(tmp_path / home) / "answers") for home in ("whole", "killed"))
    assert killed.digest == whole.digest


def test_m4rag_fault_31_a_model_that_dies_in_the_middle_is_one_line_and_the_same_command_continues(
    tmp_path: Path,
) -> None:
    from m4rag.vlm import guard, launcher

    ingest(tmp_path)
    with launcher.start(models.folder(models.VLM), served_name=models.VLM, log=tmp_path / "first.log") as server:
        process = start(tmp_path, server.url, answers_at_once=4)
        while answered(tmp_path) < 10 and process.poll() is None:
            time.sleep(0.01)
        for pid in guard.members(server.pid):
            os.kill(pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    kept = answered(tmp_path)
    lines = [line for line in errors.decode().splitlines() if line.startswith("error: ")]
    assert process.returncode == 3, errors.decode()
    assert len(lines) == 1
    assert server.url in lines[0]
    assert 10 <= kept < QUESTIONS * len(SETTINGS)

    with launcher.start(models.folder(models.VLM), served_name=models.VLM, log=tmp_path / "second.log") as server:
        finish(start(tmp_path, server.url, answers_at_once=16))
    rows = list(read_folder(run_folder(tmp_path) / "answers", Answer))
    assert len({(row.setting, row.question_id) for row in rows}) == len(rows) == QUESTIONS * len(SETTINGS)
    assert not [row for row in rows if row.status == "error"]
