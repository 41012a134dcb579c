"""`m4rag doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from m4rag.cli.output import Json, emit

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {"ok": "green", "warning": "yellow", "missing": "red"}


def doctor(json: Json = False) -> None:
    """Say what is installed, reachable and missing, and what to do about it."""
    from m4rag.doctor import examine
    from m4rag.settings import settings

    findings = examine(settings())

    def render(console: Console) -> None:
        from rich.table import Table

        table = Table("", "what", "found", "remedy", box=None, pad_edge=False)
        for finding in findings:
            style = STYLES[finding.state]
            table.add_row(f"[{style}]{finding.state}[/]", finding.subject, finding.detail, finding.remedy)
        console.print(table)

    emit([finding.model_dump() for finding in findings], json, render)
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(3)
