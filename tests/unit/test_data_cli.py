"""`m4rag data`, `m4rag corpus` and `m4rag bench score` as a user meets them: output, exit codes, one line of error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cvqa_files import parquet, shade
from cvqa_files import row as row_of_cvqa

from m4rag.cli import main
from m4rag.schema import Document, Question
from m4rag.settings import settings
from m4rag.shards import read_folder


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def m4rag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process; its home is `tmp_path / "home"`."""
    monkeypatch.setenv("M4RAG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        settings.cache_clear()
        monkeypatch.setattr(sys, "argv", ["m4rag", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        return Done(left.value.code if isinstance(left.value.code, int) else 0, out, err)

    return run


def refused(done: Done, code: int, message: str) -> None:
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def row(qa_id: str, lang: str, **changes: Any) -> dict[str, Any]:
    return {
        "qa_id": qa_id,
        "lang": lang,
        "food_id": 1,
        "prompt_id": "1",
        "prompt_type": "1",
        "question": "?",
        "options": ["a", "b", "c", "d", "e"],
        "answer_index": 2,
        "answer": "b",
        "image_url": "https://example.org/1.jpg",
    } | changes


def items(folder: Path, *rows: dict[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "items.parquet")
    return folder / "items.parquet"


def test_list_names_every_dataset(m4rag: Run) -> None:
    listed = json.loads(m4rag("data", "list", "--json").stdout)
    assert [dataset["name"] for dataset in listed["datasets"]] == ["sample", "museum", "worldcuisines", "cvqa"]
    assert "worldcuisines-kb" in m4rag("data", "list").stdout


def test_m4rag_fault_11_a_switch_is_on_where_it_stands_and_takes_no_word(m4rag: Run) -> None:
    # With `type=bool`, `--json False` would be on.
    assert m4rag("data", "list", "--json", "False").returncode == 2
    with pytest.raises(json.JSONDecodeError):
        json.loads(m4rag("data", "list").stdout)


def test_check_passes_a_sound_file_and_fails_a_broken_one(m4rag: Run, tmp_path: Path) -> None:
    sound = m4rag("data", "check", "--dataset", "worldcuisines", "--items", items(tmp_path, row("1", "nan")))
    assert sound.returncode == 0, sound.stderr
    assert "rows in written Hokkien" in sound.stdout
    broken = items(tmp_path, row("1", "nan"), row("2", "nan", answer_index=6))
    done = m4rag("data", "check", "--dataset", "worldcuisines", "--items", broken, "--json")
    assert done.returncode == 1
    worst = json.loads(done.stdout)[0]
    assert (worst["level"], worst["check"], worst["example"]) == ("error", "gold index out of range", "row 1 (2-nan)")


def test_prepare_writes_questions_that_can_be_read_again(m4rag: Run, tmp_path: Path) -> None:
    path = items(tmp_path, row("1", "nan"), row("1", "en"), row("2", "nan"), row("2", "en"))
    arguments = ("data", "prepare", "--dataset", "worldcuisines", "--items", path, "--limit", 2, "--json")
    first, second = (json.loads(m4rag(*arguments).stdout) for _ in range(2))
    assert first == second
    assert (first["rows"], first["varieties"]) == (2, 2)
    questions = list(read_folder(Path(first["folder"]), Question))
    assert len({question.extra["qa_id"] for question in questions}) == 1
    again = m4rag("data", "check", "--dataset", "worldcuisines", "--items", first["folder"])
    assert again.returncode == 0, again.stderr


def test_cvqa_is_checked_prepared_and_asked(m4rag: Run, tmp_path: Path) -> None:
    path = parquet(tmp_path / "cvqa" / "test.parquet", row_of_cvqa(), row_of_cvqa(ID="2_0", image=shade(2)))
    checked = m4rag("data", "check", "--dataset", "cvqa", "--items", path)
    assert checked.returncode == 0, checked.stderr
    assert "whole split" in checked.stdout
    made = json.loads(m4rag("data", "prepare", "--dataset", "cvqa", "--items", path, "--json").stdout)
    assert (made["rows"], made["varieties"], made["images"]) == (4, 2, 2)
    for items_of_run in (path, path.parent, made["folder"]):
        # The questions are read and found good; what is missing is the model.
        done = m4rag("bench", "run", "--dataset", "cvqa", "--items", items_of_run, "--vlm-url", "http://127.0.0.1:9/v1")
        refused(done, 3, "127.0.0.1:9")
    withheld = parquet(tmp_path / "withheld.parquet", row_of_cvqa(Label=-1))
    done = m4rag("data", "check", "--dataset", "cvqa", "--items", withheld, "--json")
    assert (done.returncode, json.loads(done.stdout)[0]["check"]) == (1, "labels withheld (-1)")
    refused(m4rag("bench", "run", "--dataset", "cvqa", "--items", withheld), 4, "labels withheld")
    refused(m4rag("bench", "run", "--dataset", "cvqa", "--items", path, "--setting", "oracle"), 4, "no gold document")
    moving = "hf://datasets/owner/cvqa@main"
    refused(m4rag("data", "prepare", "--dataset", "cvqa", "--items", moving), 2, "Pin one: 40 hex digits")


def test_ingest_writes_documents_once(m4rag: Run, tmp_path: Path) -> None:
    lines = [
        {"document_id": f"x:{n}", "title": "ጤፍ", "text": "", "language": code, "source": "x"}
        for n, code in enumerate(["am", "nan", "nan"])
    ]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    arguments = ("corpus", "ingest", "--source", "jsonl", "--name", "mine", tmp_path / "d.jsonl", "--json")
    first, second = (json.loads(m4rag(*arguments).stdout) for _ in range(2))
    assert (first["rows"], first["languages"], first["without_text"]) == (3, {"nan": 2, "am": 1}, 3)
    assert (first["unchanged"], second["unchanged"]) == (False, True)
    assert first["digest"] == second["digest"]
    folder = tmp_path / "home" / "corpus" / "mine" / "documents"
    assert Path(first["folder"]) == folder
    assert [document.document_id for document in read_folder(folder, Document)] == ["x:0", "x:1", "x:2"]
    (tmp_path / "d.jsonl").write_text(json.dumps(lines[0]) + "\n", encoding="utf-8")
    third = json.loads(m4rag(*arguments).stdout)
    assert (third["rows"], third["unchanged"]) == (1, False)


def test_the_knowledge_base_is_ingested_whole(m4rag: Run, shared_data: Path) -> None:
    done = m4rag("corpus", "ingest", "--source", "worldcuisines-kb", shared_data / "dishes.csv")
    assert done.returncode == 0, done.stderr
    assert "2,240 documents (en 2,240)" in done.stdout
    again = m4rag("corpus", "ingest", "--source", "worldcuisines-kb", shared_data / "dishes.csv")
    assert again.stdout.startswith("unchanged: 2,240 documents")


def test_bad_input_is_one_line_and_its_exit_code(m4rag: Run, tmp_path: Path) -> None:
    check = ("data", "check", "--dataset")
    refused(m4rag(*check, "wordcuisines"), 2, "unknown dataset 'wordcuisines'")
    refused(m4rag(*check, "worldcuisines"), 2, "Name them with --items")
    gone = tmp_path / "gone.parquet"
    refused(m4rag(*check, "worldcuisines", "--items", gone), 4, "gone.parquet: no such file")
    missing = row("1", "en")
    del missing["answer_index"]
    path = items(tmp_path, missing)
    refused(m4rag(*check, "worldcuisines", "--items", path), 4, "no column 'answer_index'")
    prepare = ("data", "prepare", "--dataset", "worldcuisines", "--items")
    path = items(tmp_path, row("1", "xx"))
    refused(m4rag(*prepare, path), 4, "row 0 (1-xx): unknown language code 'xx'")
    ingest = ("corpus", "ingest", "--source")
    refused(m4rag(*ingest, "jsonl", "--name", "../up", path), 2, "'../up' can't name a corpus")
    (tmp_path / "empty.jsonl").write_bytes(b"")
    refused(m4rag(*ingest, "jsonl", tmp_path / "empty.jsonl"), 4, "empty.jsonl: no documents")


@pytest.mark.parametrize("parser", ["published", "strict"])
def test_bench_score_prints_json_and_a_table(m4rag: Run, tmp_path: Path, parser: str) -> None:
    path = items(tmp_path, row("1", "nan"), row("1", "en"), row("2", "en", answer_index=1, answer="a"))
    predictions = tmp_path / "p.jsonl"
    texts = [("1", "nan", "2. b"), ("1", "en", "b"), ("2", "en", "1")]
    predictions.write_text("".join(json.dumps({"qa_id": q, "lang": v, "prediction": t}) + "\n" for q, v, t in texts))
    score = ("bench", "score", "--dataset", "worldcuisines", "--items", path, "--predictions", predictions)
    payload = json.loads(m4rag(*score, "--parser", parser, "--json").stdout)
    assert payload["accuracy"] == (66.67 if parser == "published" else 100.0)
    assert payload["by_prompt_type"]["1"]["by_variety"]["nan"] == 100.0
    table = m4rag(*score, "--parser", parser)
    assert "1 no context" in table.stdout, table.stderr
    assert "baseline: majority" in table.stdout
    unread = "1 unparsable" if parser == "published" else "none"
    assert f"counted wrong as invalid: {unread}" in table.stdout
