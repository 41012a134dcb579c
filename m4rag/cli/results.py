"""A run's result on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from m4rag.cli.output import emit

if TYPE_CHECKING:
    from rich.console import Console

    from m4rag.bench.runs import Caption
    from m4rag.bench.scoring import Estimate, Scores


def show(run: Path, as_json: bool, recorded: dict[str, Any]) -> None:
    """Print a run's scores and where its parts are."""
    from m4rag.bench.joined import read_scores
    from m4rag.bench.runner import refused_captions
    from m4rag.bench.runs import RunPlan

    scores, plan = read_scores(run), RunPlan.read(run)
    without = refused_captions(run)
    payload = {
        "run": str(run),
        "report": str(run / "report.html"),
        "mlflow": recorded,
        "model": plan.model.model_dump(),
        "images": plan.images,
        "images_without_caption": len(without),
        "scores": scores.model_dump(mode="json", exclude={"settings": {"__all__": {"breakdowns"}}}),
    }

    def render(console: Console) -> None:
        print_results(scores, plan.images, console)
        if plan.model.note:
            console.print(f"[yellow]{plan.model.note}[/]")
        if plan.images == "none":
            console.print("[yellow]Text-only baseline: no image was sent in any setting.[/]")
        if without:
            console.print(_without_caption(without, plan.command), style="yellow", highlight=False, markup=False)
        places = {"report": run / "report.html", "run": run, "MLflow": recorded["ui_command"] or recorded["url"]}
        for name, place in places.items():
            console.print(f"{name:8}{place}", soft_wrap=True, highlight=False, markup=False)

    emit(payload, as_json, render)


def _without_caption(refused: list[Caption], command: str) -> str:
    images = "1 image has" if len(refused) == 1 else f"{len(refused)} images have"
    return (
        f"{images} no caption, because the server refused ({refused[0].refused}); without one, questions count as "
        f"wrong in caption_query. Repeat the command and it asks again: {command}"
    )


def print_results(scores: Scores, images: str, console: Console) -> None:
    """The table of settings, and which of them lean to a position among the options."""
    console.print(results_table(scores, images))
    for row in scores.settings:
        found = row.positions
        if found is not None and found.biased:
            place, p = found.favourite, "< 0.001" if found.p < 0.001 else f"{found.p:.3f}"
            console.print(
                f"[yellow]{row.setting} leans to option {place + 1}: chosen in {found.chosen[place]:.1f} % of the "
                f"answers, right in {found.right[place]:.1f} % (p {p})[/]"
            )


def results_table(scores: Scores, images: str) -> Any:
    """The table of settings with the baselines as its first rows."""
    from rich.table import Table

    title = f"{scores.dataset}: {scores.questions} questions" + (", TEXT-ONLY (no images)" if images == "none" else "")
    # One space between columns: the setting with the reference model's name then fits 80 columns.
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("setting", overflow="fold")
    for column in ("accuracy %", "95 % interval", "macro %", "invalid %", "p50 ms"):
        table.add_column(column, justify="right")
    for name, baseline in scores.baselines.items():
        if baseline is None:
            table.add_row(f"[dim]baseline: {name}[/]", "[dim]not run[/]")
        else:
            table.add_row(f"[dim]baseline: {name}[/]", f"{baseline.value:.1f}", _interval(baseline))
    for row in scores.settings:
        table.add_row(
            row.setting,
            f"{row.accuracy.value:.1f}",
            _interval(row.accuracy),
            f"{row.macro.value:.1f}",
            f"{row.invalid_rate.value:.1f}",
            f"{row.latency_p50_ms:.0f}",
        )
    return table


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:.1f} - {estimate.high:.1f}"
