"""`m4rag bench agreement`: does the judge of a run judge as people do?"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m4rag.cli.output import Json, emit
from m4rag.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from m4rag.bench.labels import Agreement


def agreement_command(
    run: Annotated[Path, typer.Argument(help="Run folder that `m4rag bench judge` judged.", metavar="RUN")],
    labels: Annotated[
        list[Path] | None,
        typer.Argument(
            help="CSV with question_id, chunk_id, score (1-5), rater if people share a file. Default: earlier labels.",
            metavar="[LABELS.csv ...]",
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(metavar="N", help="Write LABELS.csv instead: N passages to label, a stratified random sample."),
    ] = None,
    json: Json = False,
) -> None:
    """Compare the judge's scores with those of people: weighted kappa and Krippendorff's alpha. No model is asked.

    The labels are kept in the run folder in place of earlier ones; the report and the record say what they show.
    """
    from m4rag.bench.judgements import pairs
    from m4rag.bench.labels import keep_labels, need_judgements, read_labels, write_agreement, write_sample
    from m4rag.bench.report import write_report
    from m4rag.bench.runs import RunPlan
    from m4rag.cli.record import record_run
    from m4rag.settings import settings

    need_judgements(run)
    if sample is not None:
        if labels is None or len(labels) != 1:
            raise UsageError("it writes one file", where="--sample", remedy="Name one: RUN labels.csv --sample 100.")
        written = write_sample(run, sample, labels[0])
        emit(
            {"file": str(labels[0]), "passages": written},
            json,
            lambda console: _explain(console, run, labels[0], written),
        )
        return
    if labels:
        keep_labels(run, read_labels(labels, pairs(run, RunPlan.read(run))))
    found = write_agreement(run)
    if found is None:
        raise UsageError(
            "nobody labelled passages of this run",
            where=str(run),
            remedy=f"`m4rag bench agreement {run} labels.csv --sample 100` writes a file to fill in.",
        )
    report = write_report(run)
    recorded = record_run(run, settings())
    payload = {"run": str(run), "report": str(report), "mlflow": recorded, "agreement": found.model_dump(mode="json")}
    emit(payload, json, lambda console: _render(console, found, report))


def _explain(console: Console, run: Path, file: Path, written: int) -> None:
    from m4rag.vlm.prompts import rubric

    console.print(
        f"{written} passages to label, the judge's scores hidden: {file}\n\n"
        "For each row, read question and passage, look at the image, and write into the column score:\n",
        *(f"  {line}\n" for line in rubric()),
        "\nLeave a row blank if you can't read its language. Several people: a copy of the file each. Then\n\n"
        f"  {shlex.join(['m4rag', 'bench', 'agreement', str(run), str(file)])}",
        sep="",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _render(console: Console, found: Agreement, report: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (f"{escape(found.judge)} against", "labels", "images", "weighted kappa", "Krippendorff's alpha"):
        table.add_column(column, justify="right" if column in ("labels", "images") else "left")
    for row in (found.overall, *found.raters):
        table.add_row(escape(row.rater), f"{row.labels:,}", f"{row.kappa.groups:,}", row.kappa.words, row.alpha.words)
    if found.people is not None:
        table.add_section()
        table.add_row("people without the judge", "", f"{found.people.groups:,}", "", found.people.words)
    console.print(table, "")
    counts = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("people gave", *map(str, range(1, len(found.confusion) + 1))):
        counts.add_column(column, justify="right")
    for score, row_counts in enumerate(found.confusion, 1):
        counts.add_row(f"judge gave {score}", *(f"{count:,}" if count else "·" for count in row_counts))
    console.print(counts, "")
    console.print(found.words, highlight=False, markup=False)
    if found.unjudged:
        console.print(f"[yellow]{found.unjudged:,} labels are of passages without a score of the judge: not counted[/]")
    console.print(f"report  {report}", soft_wrap=True, highlight=False, markup=False)
