"""`m4rag bench report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m4rag.cli.output import Json, emit, say

if TYPE_CHECKING:
    from rich.console import Console

Run = Annotated[Path, typer.Argument(help="Run folder that `m4rag bench run` made.", metavar="RUN")]


def report_command(
    run: Run,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also write FILE.csv or FILE.parquet (every accuracy) or FILE.tex (the table of settings); repeat it."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a run's report, one HTML file that needs no network, and print where it is."""
    from m4rag.bench.export import check_target, export
    from m4rag.bench.report import write_report

    for target in out or []:
        check_target(target)
    path = write_report(run).resolve()
    for target in out or []:
        export(run, target)
        say(f"written {target}")
    emit({"report": str(path), "bytes": path.stat().st_size}, json, lambda console: _print(console, str(path)))


def _print(console: Console, line: str) -> None:
    # Addresses and paths are copied from the terminal: no wrapping, no markup.
    console.print(line, soft_wrap=True, markup=False, highlight=False)
