"""Scores as files for other programs."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from run_folders import write_run
from typer.testing import CliRunner

from m4rag.bench.export import escaped, latex
from m4rag.bench.joined import read_scores
from m4rag.bench.runs import RunPlan
from m4rag.cli import app
from m4rag.errors import UsageError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, model="tiny_vlm&co")
    return folder


def test_the_report_command_writes_what_it_is_asked_for(run: Path, tmp_path: Path) -> None:
    names = ("scores.csv", "scores.parquet", "table.tex")
    outs = [word for name in names for word in ("--out", str(tmp_path / name))]
    done = CliRunner().invoke(app, ["bench", "report", str(run), *outs], catch_exceptions=False)
    assert done.exit_code == 0

    scores = read_scores(run)
    table = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    with (tmp_path / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(table)
    assert [row["setting"] for row in table if row["dimension"] == "all"] == [row.setting for row in scores.settings]
    for setting in scores.settings:
        found = {(row["dimension"], row["key"]): row for row in table if row["setting"] == setting.setting}
        assert found["all", "all"]["accuracy"] == setting.accuracy.value
        assert found["language", "am"]["accuracy_low"] == setting.breakdowns["language"]["am"].low
        assert len(found) == 1 + sum(map(len, setting.breakdowns.values()))
    assert (tmp_path / "table.tex").read_text() == latex(RunPlan.read(run), scores)


def test_the_latex_table_has_a_whole_row_for_every_setting_and_no_open_character(run: Path) -> None:
    text = latex(RunPlan.read(run), read_scores(run))
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [row.count("&") - row.count(r"\&") for row in rows] == [6] * (1 + 3 + 4)
    assert r"caption\_query & " in text
    assert r"tiny\_vlm\&co on 180 questions" in text
    bare = re.sub(r"\\.", "", "\n".join(line for line in text.splitlines() if not line.startswith("%")))
    assert not set("%#~^_") & set(bare)
    assert bare.count("{") == bare.count("}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 5 %", r"a\_b \& 5 \%"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("~^#$\n\n% x", r"\textasciitilde{}\textasciicircum{}\#\$ \% x"),
        ("汉字 हिन्दी", "汉字 हिन्दी"),
    ],
)
def test_text_is_escaped(text: str, expected: str) -> None:
    assert escaped(text) == expected


def test_a_warning_stands_beside_the_numbers(tmp_path: Path) -> None:
    write_run(tmp_path, note="Random weights: chance_level.", images="none", settings=("no_rag",))
    text = latex(RunPlan.read(tmp_path), read_scores(tmp_path))
    assert r"Random weights: chance\_level. Text-only baseline: no image was sent." in text


@pytest.mark.parametrize(
    ("target", "message"), [("x.xlsx", "neither .csv, .parquet, .tex"), ("nowhere/x.csv", "no such folder")]
)
def test_a_file_that_cannot_be_written_is_refused_first(run: Path, tmp_path: Path, target: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CliRunner().invoke(app, ["bench", "report", str(run), "--out", str(tmp_path / target)], catch_exceptions=False)
