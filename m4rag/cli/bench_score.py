"""`m4rag bench score`: scores of a run, or of a file of predictions that another program made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m4rag.cli.output import Json, emit
from m4rag.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from m4rag.bench.predictions import PredictionScores
    from m4rag.bench.statistics import Estimate

EXTREMES = 3


def score_command(
    run: Annotated[Path | None, typer.Argument(help="Run folder to score again.", metavar="[RUN]")] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help="Parquet, JSONL or CSV with qa_id, lang, prediction (free text)."),
    ] = None,
    dataset: Annotated[str, typer.Option("--dataset", help="Dataset the predictions answer.")] = "worldcuisines",
    items: Annotated[Path | None, typer.Option("--items", help="File or folder of its questions.")] = None,
    parser: Annotated[
        str | None,
        typer.Option(
            "--parser",
            help="published: as WorldCuisines' authors read answers; paper-parity: as M4-RAG's do; strict: ours. "
            "Default: published for predictions, strict for runs.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Score a run again, or predictions made elsewhere, with 95 % intervals over images. No model is asked.

    Predictions are reported by prompt type and variety. A run's own scores are those by the strict rules: by other
    rules they are only printed.
    """
    if run is not None and predictions is None:
        from m4rag.bench.benchmark import finish
        from m4rag.bench.reread import score_by_published_rules
        from m4rag.bench.runs import RunPlan
        from m4rag.cli.results import print_results

        images = RunPlan.read(run).images
        if parser not in (None, "strict", "paper-parity"):
            raise UsageError(f"no parser {parser!r} for runs", remedy="Use strict or paper-parity.")
        finished = score_by_published_rules(run) if parser == "paper-parity" else finish(run)
        emit(finished.model_dump(mode="json"), json, lambda console: print_results(finished, images, console))
        return
    if predictions is None or run is not None:
        raise UsageError("name a run folder, or --predictions FILE with --items FILE")
    from m4rag.bench.predictions import score_predictions

    scores = score_predictions(dataset, items, predictions, parser or "published")
    emit(scores.payload(), json, lambda console: render(scores, console))


def render(scores: PredictionScores, console: Console) -> None:
    """Print the scores for a person: a row a prompt type, then baselines and what could not be read."""
    from rich.table import Table

    from m4rag.datasets.worldcuisines import PROMPT_TYPES

    table = Table(
        "prompt type", "macro %", "95 % interval", "best varieties", "worst varieties", box=None, pad_edge=False
    )
    table.columns[1].justify = "right"
    for kind, macro in scores.macro_by_prompt_type.items():
        cells = sorted(scores.by_variety[kind].items(), key=lambda cell: -cell[1].value)
        name = f"{kind} {PROMPT_TYPES.get(kind, '')}".strip()
        best, worst = _listed(cells[:EXTREMES]), _listed(cells[: -EXTREMES - 1 : -1])
        table.add_row(name, f"{macro.value:.2f}", _interval(macro), best, worst)
    table.add_section()
    table.add_row("macro over varieties", f"{scores.macro.value:.2f}", _interval(scores.macro), "", "")
    table.add_row("[bold]accuracy[/]", f"[bold]{scores.accuracy.value:.2f}[/]", _interval(scores.accuracy), "", "")
    if scores.without_corrupt is not None:
        sound = scores.without_corrupt
        table.add_row("without corrupt Cantonese origin", f"{sound.value:.2f}", _interval(sound), "", "")
    table.add_section()
    for name, baseline in scores.baselines.items():
        value = "not run" if baseline is None else f"{baseline.value:.2f}"
        table.add_row(f"baseline: {name.replace('_', ' ')}", value, _interval(baseline) if baseline else "", "", "")
    console.print(table, "")
    invalid = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in scores.invalid.items() if count)
    console.print(f"{scores.n:,} questions, parser {scores.parser}; counted wrong as invalid: {invalid or 'none'}")


def _listed(cells: list[tuple[str, Estimate]]) -> str:
    return ", ".join(f"{variety} {estimate.value:.1f}" for variety, estimate in cells)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:.2f} - {estimate.high:.2f}"
