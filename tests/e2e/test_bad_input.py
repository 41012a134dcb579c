"""Bad input at the command line: one clear line on stderr, the right exit code, nothing lost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from run_folders import write_run

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def m4rag(tmp_path: Path) -> Run:
    """Run `m4rag ARGS` in a home of its own, with extra environment variables."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "m4rag.cli", *arguments],
            env={**os.environ, "M4RAG_HOME": str(tmp_path / "home"), **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Exit code, one error line, and the words a user needs to find the place and the remedy."""
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in errors[0]


def jsonl_corpus(path: Path, language: str = "en") -> Path:
    document = {
        "document_id": "jsonl:1",
        "title": "Injera",
        "text": "A flatbread.",
        "language": language,
        "source": "jsonl",
    }
    path.write_text(json.dumps(document) + "\n")
    return path


def test_unknown_language_code(m4rag: Run, tmp_path: Path) -> None:
    path = jsonl_corpus(tmp_path / "docs.jsonl", language="xx_klingon")
    assert_one_line(m4rag("corpus", "ingest", "--source", "jsonl", str(path)), 4, "xx_klingon", "docs.jsonl")


def test_parquet_without_a_column(m4rag: Run, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"qa_id": ["1"], "lang": ["en"]}), path)
    done = m4rag("bench", "run", "--dataset", "worldcuisines", "--items", str(path), "--images", "none")
    assert_one_line(done, 4, "items.parquet", "column")


def test_gold_index_out_of_range(m4rag: Run, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {
        "qa_id": "1",
        "task": 1,
        "lang": "nan",
        "food_id": 1,
        "prompt_id": "1",
        "prompt_type": "1",
        "question": "?",
        "options": ["a", "b", "c", "d"],
        "answer_index": 9,
        "answer": "a",
        "image_url": "x.jpg",
    }
    path = tmp_path / "items.parquet"
    pq.write_table(pa.Table.from_pylist([row]), path)
    done = m4rag("bench", "run", "--dataset", "worldcuisines", "--items", str(path), "--images", "none")
    assert_one_line(done, 4, "items.parquet row 0 (1-nan)", "gold index out of range")


def test_unreachable_milvus(m4rag: Run, tmp_path: Path, closed_port: int) -> None:
    m4rag("corpus", "ingest", "--source", "jsonl", str(jsonl_corpus(tmp_path / "docs.jsonl")))
    done = m4rag("index", "build", MILVUS_URI=f"http://127.0.0.1:{closed_port}")
    assert_one_line(done, 3, str(closed_port))


def test_unreachable_vlm(m4rag: Run, closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}/v1"
    done = m4rag("bench", "run", "--limit", "5", "--setting", "no_rag", "--vlm-url", url)
    assert_one_line(done, 3, str(closed_port))


def test_unknown_setting_lists_the_known_ones(m4rag: Run) -> None:
    assert_one_line(m4rag("bench", "run", "--setting", "magic"), 2, "magic", "caption_query")


def test_a_corpus_that_was_not_ingested(m4rag: Run) -> None:
    done = m4rag("bench", "run", "--setting", "oracle")
    assert_one_line(done, 2, "corpus/sample/documents", "m4rag corpus ingest")


def test_image_setting_without_images(m4rag: Run) -> None:
    done = m4rag("bench", "run", "--setting", "caption_query", "--images", "none")
    assert_one_line(done, 2, "caption_query", "--images none")


def test_m4rag_fault_27_a_setting_of_the_environment_that_is_not_a_number(m4rag: Run) -> None:
    assert_one_line(m4rag("doctor", M4RAG_VLM_CONCURRENCY="many"), 2, "M4RAG_VLM_CONCURRENCY")


def test_a_folder_that_is_no_run(m4rag: Run, tmp_path: Path) -> None:
    assert_one_line(m4rag("bench", "report", str(tmp_path)), 4, str(tmp_path))


def test_a_policy_that_was_changed(m4rag: Run, tmp_path: Path) -> None:
    write_run(tmp_path / "run", settings=("no_rag", "caption_query"))
    file = tmp_path / "policy.json"
    assert m4rag("policy", "fit", str(tmp_path / "run"), "--output", str(file)).returncode == 0
    file.write_text(file.read_text().replace('"k": 3', '"k": 4'))
    done = m4rag("policy", "show", str(file))
    assert_one_line(done, 4, str(file), "changed since it was fitted", "m4rag policy fit")


def test_doctor_names_what_cannot_be_reached(m4rag: Run, closed_port: int) -> None:
    done = m4rag("doctor", "--json", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{closed_port}")
    assert done.returncode == 3
    assert str(closed_port) in done.stdout
