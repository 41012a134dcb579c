"""The same answers by the published rules: they give and take points, and write nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_folders import write_run
from typer.testing import CliRunner

from m4rag.bench.benchmark import finish
from m4rag.bench.option_order import shown_order
from m4rag.bench.reread import reread, score_by_published_rules
from m4rag.cli import app
from m4rag.schema import Answer, Question, Status

QUESTION = Question(
    question_id="q", dataset="d", language="yo", question="?", options=("a", "b", "c"), answer_index=1, group="g"
)


def answer(raw: str, status: Status = Status.UNPARSABLE) -> Answer:
    choice = 0 if status is Status.OK else None
    return Answer(question_id="q", setting="no_rag", model="m", choice=choice, status=status, raw=raw)


@pytest.mark.parametrize(
    ("raw", "choice", "status"),
    [
        ('{"answer": 2}', 1, Status.OK),
        ('{"answer": 4}', None, Status.OUT_OF_RANGE),
        ('{"answer": 0}', None, Status.OUT_OF_RANGE),
        ("b", None, Status.UNPARSABLE),
    ],
)
def test_every_answer_has_a_status_by_the_published_rules(raw: str, choice: int | None, status: Status) -> None:
    for before in (Status.OK, Status.TRUNCATED, Status.REFUSED):
        found = reread(answer(raw, before), QUESTION)
        assert (found.choice, found.status) == (choice, status)


def test_what_the_server_refused_is_not_read() -> None:
    refused = answer('the server said "answer": 2', Status.ERROR)
    assert reread(refused, QUESTION) == refused


def test_the_order_that_was_shown_is_undone() -> None:
    for seed in range(9):
        assert reread(answer('{"answer": 2}'), QUESTION, seed).choice == shown_order(seed, "q", 3)[1]


def test_a_run_by_the_published_rules_is_only_printed(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    ours = finish(tmp_path / "run")
    before = (tmp_path / "run" / "scores.json").read_bytes()
    theirs = score_by_published_rules(tmp_path / "run")
    # The answers of this run are clean objects, or prose that neither reads.
    assert [row.accuracy for row in theirs.settings] == [row.accuracy for row in ours.settings]

    def printed(*options: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["bench", "score", str(tmp_path / "run"), "--json", *options])
        return done.exit_code, done.stdout

    assert json.loads(printed("--parser", "paper-parity")[1]) == theirs.model_dump(mode="json")
    assert (tmp_path / "run" / "scores.json").read_bytes() == before
    assert json.loads(printed()[1]) == json.loads(printed("--parser", "strict")[1]) == ours.model_dump(mode="json")
    with pytest.raises(Exception, match="no parser 'published' for runs"):
        CliRunner().invoke(
            app, ["bench", "score", str(tmp_path / "run"), "--parser", "published"], catch_exceptions=False
        )
