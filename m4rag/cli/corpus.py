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
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="Files to read; none for the sample or the museum.")
    ] = None,
    source: Annotated[str, typer.Option("--source", help="What the file is (see `m4rag data list`).")] = "jsonl",
    name: Annotated[str | None, typer.Option("--name", help="Name of the corpus. [default: the source]")] = None,
    site: Annotated[
        str | None,
        typer.Option("--site", help="For mediawiki-api: a Wikipedia's language code, or the address of a wiki."),
    ] = None,
    json: Json = False,
) -> None:
    """Read documents and write them as a folder of Parquet with a manifest; an unchanged source writes nothing."""
    from m4rag.datasets.ingest import ingest_documents
    from m4rag.settings import settings

    done = ingest_documents(source, paths or [], settings().home, name or source, site=site, progress=progress)

    def render(console: Console) -> None:
        languages = ", ".join(f"{code} {rows:,}" for code, rows in done.languages.items())
        state = "unchanged: " if done.unchanged else ""
        console.print(f"{state}{done.rows:,} documents ({languages}), digest {done.digest[:12]}")
        if done.without_text:
            console.print(f"{done.without_text:,} of them have a title but no text")
        if done.left_out:
            console.print("left out: " + ", ".join(f"{rows:,} {kind}" for kind, rows in done.left_out.items()))
        console.print(
            "licences: " + ", ".join(f"{name or 'not stated'} {rows:,}" for name, rows in done.licenses.items())
        )
        console.print(str(done.folder), soft_wrap=True)

    emit(done.report(), json, render)
