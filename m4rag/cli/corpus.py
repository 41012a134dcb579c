"""`m4rag corpus`: documents from where they are into the form that the index is built from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m4rag.cli.output import Json, emit, progress

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(help="Documents: ingest a corpus.", no_args_is_help=True)


@app.callback()
def corpus() -> None:
    """Documents: ingest a corpus."""


@app.command()
def ingest(
    path: Annotated[Path | None, typer.Argument(help="File to read; not for --source sample.")] = None,
    source: Annotated[str, typer.Option("--source", help="What the file is (see `m4rag data list`).")] = "jsonl",
    name: Annotated[str | None, typer.Option("--name", help="Name of the corpus. [default: the source]")] = None,
    json: Json = False,
) -> None:
    """Read documents and write them as a folder of Parquet with a manifest; an unchanged source writes nothing."""
    from m4rag.datasets.ingest import ingest_documents
    from m4rag.settings import settings

    with progress("documents", None) as advance:
        done = ingest_documents(source, path, settings().home, name or source, progress=advance)

    def render(console: Console) -> None:
        languages = ", ".join(f"{code} {rows:,}" for code, rows in done.languages.items())
        state = "unchanged: " if done.unchanged else ""
        console.print(f"{state}{done.rows:,} documents ({languages}), digest {done.digest[:12]}")
        if done.without_text:
            console.print(f"{done.without_text:,} of them have a title but no text")
        console.print(str(done.folder), soft_wrap=True)

    emit(done.report(), json, render)
