"""Retrieval of gold documents within a language and across languages, as `m4rag index eval --dataset` measures it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from m4rag.datasets import load_questions
from m4rag.index.search import search
from m4rag.index.store import connect
from m4rag.settings import Settings

QUESTIONS = load_questions("sample")


def m4rag(home: Path, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "m4rag.cli", *arguments, "--json"],
        env={**os.environ, "M4RAG_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    m4rag(folder, "corpus", "ingest", "--source", "sample")
    m4rag(folder, "index", "build", "sample", "--channels", "bm25")
    return folder


def test_words_find_pages_in_their_own_language_and_hardly_in_others(home: Path) -> None:
    report = m4rag(home, "index", "eval", "sample", "--dataset", "sample")
    scopes = report["channels"]["bm25"]
    assert report["queries"] == scopes["all"]["queries"] == len(QUESTIONS)
    assert scopes["monolingual"]["mean"]["ndcg@5"] > 2 * scopes["cross-lingual"]["mean"]["ndcg@5"]
    assert set(scopes["monolingual"]["languages"]) == {question.language for question in QUESTIONS}


def test_a_scope_is_a_filtered_search(home: Path) -> None:
    report = m4rag(home, "index", "eval", "sample", "--dataset", "sample")
    asked = [question for question in QUESTIONS if question.language == "ko"]
    from m4rag.encoders import Query

    with connect(Settings(home=home)) as store:
        found = search(store, "sample", [Query(q.question) for q in asked], None, 1, "bm25", languages=["ko"])
    first = [bool(hits) and hits[0].document_id == f"{q.gold[0]}:ko" for q, hits in zip(asked, found, strict=True)]
    measured = report["channels"]["bm25"]["monolingual"]["languages"]["ko"]
    assert measured["queries"] == len(asked)
    assert measured["recall@1"] == pytest.approx(sum(first) / len(first), abs=1e-3)


def test_varieties_are_their_language_and_an_empty_scope_is_not_searched() -> None:
    from m4rag.index.evaluate_questions import _within

    there = {"en", "jv", "es"}
    assert _within("jv_krama", there) == {
        "all": ["en", "es", "jv"],
        "monolingual": ["jv"],
        "cross-lingual": ["en", "es"],
    }
    assert _within("en", {"en"})["cross-lingual"] == []
    assert _within("ja", {"en"})["monolingual"] == []
