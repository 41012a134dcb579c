"""`m4rag data`: which benchmarks there are, whether their data is sound, and a prepared copy of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m4rag.cli.output import Json, emit

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(help="Benchmark questions: list, check, prepare.", no_args_is_help=True)

Dataset = Annotated[str, typer.Option("--dataset", help="Name of the dataset (see `m4rag data list`).")]
Items = Annotated[
    Path | None,
    typer.Option("--items", help="File or folder the questions are read from, or hf://datasets/OWNER/NAME@COMMIT."),
]

STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


@app.command("list")
def list_datasets(json: Json = False) -> None:
    """List the datasets and the sources of documents."""
    from dataclasses import asdict

    from m4rag.datasets import DATASETS, SOURCES

    def render(console: Console) -> None:
        from rich.table import Table

        table = Table("dataset", "what it asks", "size", "licence", "--items", box=None, pad_edge=False)
        for dataset in DATASETS.values():
            row = (dataset.name, dataset.about, dataset.contents, dataset.license, dataset.items or "not needed")
            table.add_row(*row)
        console.print(table, "")
        sources = Table("source", "documents for `m4rag corpus ingest`", box=None, pad_edge=False)
        for name, about in SOURCES.items():
            sources.add_row(name, about)
        console.print(sources)

    emit({"datasets": [asdict(dataset) for dataset in DATASETS.values()], "sources": SOURCES}, json, render)


@app.command()
def check(dataset: Dataset, items: Items = None, json: Json = False) -> None:
    """Look for the known defects of a dataset; exit 1 if one makes scores meaningless."""
    from dataclasses import asdict

    from m4rag.datasets import image_root, load_items
    from m4rag.datasets.guards import examine

    findings = examine(load_items(dataset, items), dataset, image_root(items))

    def render(console: Console) -> None:
        from rich.table import Table

        table = Table("", "check", "rows", "what it means", box=None, pad_edge=False)
        table.columns[2].justify = "right"
        for finding in findings:
            level = f"[{STYLES[finding.level]}]{finding.level}[/]"
            example = f" First: {finding.example}." if finding.example else ""
            table.add_row(level, finding.check, f"{finding.count:,}", finding.meaning + example)
        console.print(table)

    emit([asdict(finding) for finding in findings], json, render)
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


@app.command()
def prepare(
    dataset: Dataset,
    items: Items = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder to write. [default: <home>/questions/<dataset>]")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="At most this many, spread over varieties and prompt types.")
    ] = None,
    json: Json = False,
) -> None:
    """Write a dataset's questions, checked, as a folder of Parquet that every `--items` takes."""
    from m4rag.datasets.prepare import prepare_questions
    from m4rag.settings import settings

    folder = output or settings().home / "questions" / dataset
    manifest = prepare_questions(dataset, items, folder, limit)
    varieties = manifest.counts["varieties"]
    report = {
        "folder": str(folder),
        "rows": manifest.rows,
        "varieties": len(varieties),
        "images": manifest.counts["images"],
        "digest": manifest.digest,
    }

    def render(console: Console) -> None:
        console.print(
            f"{manifest.rows:,} questions in {len(varieties)} varieties, {manifest.counts['images']:,} images, "
            f"digest {manifest.digest[:12]}"
        )
        console.print(str(folder), soft_wrap=True)

    emit(report, json, render)
