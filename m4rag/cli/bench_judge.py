"""`m4rag bench judge`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m4rag.cli.output import Json, emit, progress, say

if TYPE_CHECKING:
    from rich.console import Console

    from m4rag.bench.relevance import Bin, Relevance


class Told(StrEnum):
    """Whether the judge is told the right answer."""

    SHOWN = "shown"
    HIDDEN = "hidden"


def judge_command(
    run: Annotated[Path, typer.Argument(help="Run folder that `m4rag bench run` made.", metavar="RUN")],
    vlm_url: Annotated[
        str | None,
        typer.Option(
            help="OpenAI-compatible server of the judge. Default: M4RAG_JUDGE_URL, else M4RAG_VLM_URL, else embedded."
        ),
    ] = None,
    answer: Annotated[
        Told, typer.Option(help="shown: the judge knows the right answer, as published; hidden: as when serving.")
    ] = Told.SHOWN,
    samples: Annotated[
        int, typer.Option(help="Judge each passage this often, an odd number; its score is the median.")
    ] = 1,
    temperature: Annotated[
        float | None, typer.Option(help="Temperature of several samples. Default: 0.7. A single one is greedy.")
    ] = None,
    json: Json = False,
) -> None:
    """Judge how relevant each passage of a run is, 1 to 5; score, report and record the run again.

    Interrupted, it continues where it stopped; repeated, it asks again only what failed. How far the judge agrees with
    people, `m4rag bench agreement` tells.
    """
    from m4rag.bench.judge import judge_run
    from m4rag.bench.judgements import Sampling, pairs
    from m4rag.bench.runs import RunPlan
    from m4rag.cli.record import record_run
    from m4rag.settings import settings
    from m4rag.vlm.local import served

    sampling = Sampling.times(samples) if temperature is None else Sampling(samples, temperature)
    pairs(run, RunPlan.read(run))  # a folder that can't be judged is refused before any server is started
    with served(settings(), vlm_url or settings().judge_url, say) as url:
        relevance = judge_run(run, settings(), url, progress, with_answer=answer is Told.SHOWN, sampling=sampling)
    recorded = record_run(run, settings())
    payload: dict[str, Any] = {
        "run": str(run),
        "report": str(run / "report.html"),
        "mlflow": recorded,
        "relevance": relevance.model_dump(mode="json"),
    }
    emit(payload, json, lambda console: _render(console, relevance, run))


def _render(console: Console, relevance: Relevance, run: Path) -> None:
    from rich.table import Table

    failed = sum(relevance.failed.values())
    title = f"{relevance.pairs} passages judged by {relevance.judge.name}" + (f", {failed} failed" if failed else "")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("setting", "relevance", "questions", "retention %", "correction %"):
        table.add_column(column, justify="left" if column in ("setting", "relevance") else "right")
    for setting in (*relevance.settings, *([relevance.pooled] if relevance.pooled else [])):
        for part in (*setting.summary, setting.overall):
            table.add_row(setting.setting, part.label, str(part.n), *_rates(part))
        table.add_section()
    console.print(table)
    if relevance.auc is not None:
        found = relevance.auc
        console.print(
            f"judge's AUC, gold against other passages: {found.value:.3f} ({found.low:.3f} - {found.high:.3f})"
        )
    if relevance.consistency is not None:
        console.print(relevance.consistency.words, highlight=False)
    if relevance.judge.note is not None:
        console.print(f"[yellow]{relevance.judge.note}[/]")
    console.print(f"report  {run / 'report.html'}", soft_wrap=True, highlight=False, markup=False)


def _rates(part: Bin) -> list[str]:
    return [f"{rate.value:.1f}" if rate is not None else "-" for rate in (part.retention, part.correction)]
