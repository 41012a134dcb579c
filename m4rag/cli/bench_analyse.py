"""`m4rag bench analyse`: what do runs show about retrieval, by answer, language, relevance and model size?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m4rag.cli.output import Json, emit
from m4rag.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console
    from rich.table import Table

    from m4rag.bench.analysis import Analysis, RunAnalysis
    from m4rag.bench.paired import Difference
    from m4rag.bench.relevance import SettingRelevance
    from m4rag.bench.scale import Trend
    from m4rag.bench.statistics import Estimate
    from m4rag.bench.verdicts import Verdict

TITLES = {
    "calibration": "how much retrieval can give",
    "retrieval": "what it gives",
    "relevance": "what relevance decides",
    "languages": "in which languages",
    "prompt": "in which language to ask",
    "scale": "what the model's size does",
}


def analyse_command(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; of models of several sizes for the trend over size.")
    ],
    size: Annotated[
        list[str] | None,
        typer.Option(help="MODEL=7B (or 256M): parameters of a model whose name does not tell; repeat it."),
    ] = None,
    json: Json = False,
) -> None:
    """Say what runs show about retrieval: retention, correction, languages, relevance, model size. No model is asked.

    Differences are against no_rag, question by question; brackets hold 95 % intervals over images.
    """
    from m4rag.bench.analysis import analyse
    from m4rag.bench.verdicts import joint_verdicts, run_verdicts

    analysis = analyse(runs, dict(_size(text) for text in size or []))
    alone = [run_verdicts(run) for run in analysis.runs]
    together = joint_verdicts(analysis)
    payload = analysis.model_dump(mode="json")
    for run, verdicts in zip(payload["runs"], alone, strict=True):
        run["verdicts"] = [verdict.model_dump() for verdict in verdicts]
    payload["verdicts"] = [verdict.model_dump() for verdict in together]
    emit(payload, json, lambda console: render(analysis, alone, together, console))


def _size(text: str) -> tuple[str, float]:
    from m4rag.bench.scale import parse_size

    model, _, number = text.rpartition("=")
    size = parse_size(number)
    if not model or not size:
        raise UsageError(f"{text!r} is not MODEL=SIZE", where="--size", remedy="Write 7B, 0.5B or 256M.")
    return model, size


def render(analysis: Analysis, alone: list[list[Verdict]], together: list[Verdict], console: Console) -> None:
    """Print an analysis for a person: for each run its tables and what they show, then what the runs show together."""
    for run, verdicts in zip(analysis.runs, alone, strict=True):
        console.print(f"{run.dataset}: {run.questions:,} questions, {run.model}", style="bold", markup=False)
        console.print(run.run, style="dim", markup=False, highlight=False, soft_wrap=True)
        console.print()
        if run.images == "none":
            console.print("[yellow]Text-only baseline: no image was sent in any setting.[/]")
        for table in _tables(run):
            console.print(table, "")
        _say(verdicts, console)
    if analysis.scale.trends:
        console.print(_scale(analysis.scale.trends), "")
    _say(together, console)
    console.print(
        "brackets: 95 % interval over images. p: exact McNemar test with images as its units, adjusted by Holm over "
        "the settings, or the rows of a breakdown; * clear: p below 0.05 and an interval without 0.",
        style="dim",
    )


def _tables(run: RunAnalysis) -> Iterable[Table]:
    if run.settings:
        yield _settings(run)
    judged = run.relevance
    if judged is not None:
        for setting in (*([judged.pooled] if judged.pooled else []), *judged.settings):
            if setting.before is not None:
                yield _bands(setting)
    if run.settings and len(run.settings[0].breakdowns["variety"]) > 1:
        yield _languages(run)


def _settings(run: RunAnalysis) -> Table:
    table = _table("what context changes")
    for column in ("without %", "with %", "change", "95 % interval", "p", "retention %", "correction %"):
        table.add_column(column, justify="right")
    for row in run.settings:
        effect = row.effect
        p = effect.p if effect.p_holm is None else effect.p_holm
        table.add_row(
            row.setting,
            f"{effect.a:.1f}",
            f"{effect.b:.1f}",
            _change(effect),
            f"{effect.low:+.1f} to {effect.high:+.1f}",
            "<0.001" if p < 0.001 else f"{p:.3f}",
            _rate(row.retention),
            _rate(row.correction),
        )
    return table


def _bands(setting: SettingRelevance) -> Table:
    table = _table(f"by judged relevance: {setting.setting}")
    for column in ("n", "change", "95 % interval", "retention %", "correction %"):
        table.add_column(column, justify="right")
    for part in (*setting.summary, setting.overall):
        effect = part.effect
        ends = "" if effect is None else f"{effect.low:+.1f} to {effect.high:+.1f}"
        cells = ("" if effect is None else _change(effect), ends, _rate(part.retention), _rate(part.correction))
        table.add_row(part.label, f"{part.n:,}", *cells)
    return table


def _languages(run: RunAnalysis) -> Table:
    from m4rag.bench.analysis import LANGUAGES
    from m4rag.bench.report import JOSHI
    from m4rag.languages import SCRIPTS, lookup

    names: dict[str, Callable[[str], str]] = {
        "variety": lambda code: f"{lookup(code).name} · {code}",
        "joshi": lambda code: f"class {code}, {JOSHI[code].partition(':')[0]}",
        "script": lambda code: SCRIPTS.get(code, code),
    }
    table = _table("change by language")
    table.add_column("n", justify="right")
    for row in run.settings:
        table.add_column(row.setting, justify="right", overflow="fold")
    for dimension in LANGUAGES:
        for code, first in run.settings[0].breakdowns.get(dimension, {}).items():
            cells = [row.breakdowns[dimension][code] for row in run.settings]
            table.add_row(names[dimension](code), f"{first.n:,}", *map(_interval, cells))
        table.add_section()
    return table


def _scale(trends: tuple[Trend, ...]) -> Table:
    from rich.markup import escape

    table = _table("change by model size")
    table.add_column("size", justify="right")
    for trend in trends:
        table.add_column(trend.setting, justify="right", overflow="fold")
    for place, point in enumerate(trends[0].points):
        table.add_row(
            escape(point.model), f"{point.size:g}B", *(_interval(trend.points[place].effect) for trend in trends)
        )
    table.add_section()
    slopes = (trend.slope for trend in trends)
    table.add_row(
        "for each doubling",
        "",
        *(f"{s.value:+.1f} [{s.low:+.1f}, {s.high:+.1f}]" if s else "" for s in slopes),
    )
    return table


def _table(title: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    return table


def _say(verdicts: Iterable[Verdict], console: Console) -> None:
    for verdict in verdicts:
        console.print(f"[bold]{TITLES[verdict.about]}[/]: ", end="")
        console.print(verdict.text, markup=False, highlight=False)
    console.print()


def _change(effect: Difference) -> str:
    return f"{effect.value:+.1f}" + ("*" if effect.clear else " ")


def _interval(effect: Difference) -> str:
    return f"{effect.value:+.1f} [{effect.low:+.1f}, {effect.high:+.1f}]" + ("*" if effect.clear else " ")


def _rate(rate: Estimate | None) -> str:
    return "" if rate is None else f"{rate.value:.1f} [{rate.low:.1f}, {rate.high:.1f}]"
