from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_folders import write_run
from typer.testing import CliRunner

from m4rag.cli import app
from m4rag.errors import BadData


def test_the_command_prints_where_the_report_is(tmp_path: Path) -> None:
    write_run(tmp_path)
    result = CliRunner().invoke(app, ["bench", "report", str(tmp_path)])
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'report.html'}\n"


def test_json_says_the_same_to_machines(tmp_path: Path) -> None:
    write_run(tmp_path)
    result = CliRunner().invoke(app, ["bench", "report", str(tmp_path), "--json"])
    told = json.loads(result.stdout)
    assert told == {"report": str(tmp_path / "report.html"), "bytes": (tmp_path / "report.html").stat().st_size}


def test_a_folder_that_is_no_run_is_bad_data(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="not a benchmark run"):
        CliRunner().invoke(app, ["bench", "report", str(tmp_path)], catch_exceptions=False)
