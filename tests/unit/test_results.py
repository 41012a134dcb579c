"""What a run's result looks like on a terminal."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from run_folders import write_run

from m4rag import models
from m4rag.bench.joined import read_scores
from m4rag.cli.results import results_table


def test_the_reference_models_setting_fits_a_terminal_of_80_columns(tmp_path: Path) -> None:
    write_run(tmp_path, settings=("no_rag", "caption_query"))
    scores = read_scores(tmp_path)
    name = f"multimodal:{models.EMBED}"
    renamed = scores.settings[1].model_copy(update={"setting": name, "latency_p50_ms": 123456.0})
    shown = io.StringIO()
    table = results_table(scores.model_copy(update={"settings": (scores.settings[0], renamed)}), "all")
    Console(file=shown, width=80).print(table)
    (row,) = [line for line in shown.getvalue().splitlines() if line.startswith("multimodal")]
    assert row.split()[0] == name
    assert row.split()[-1] == "123456"
