"""`m4rag bench compare`: is one set of answers better than another, and by how much?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m4rag.cli.output import Json, emit, say
from m4rag.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from m4rag.bench.compare import Comparison, Comparisons, Side
    from m4rag.bench.paired import Difference

WRITES = (".html", ".csv")


def compare_command(
    a: Annotated[Path, typer.Argument(help="Run folder or file of predictions: the baseline.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="What is compared with it; may be the same run.", metavar="B")],
    setting: Annotated[str | None, typer.Option(help="Setting to compare. Default: all that both runs have.")] = None,
    setting_b: Annotated[str | None, typer.Option(help="B's setting where it is not A's.")] = None,
    dataset: Annotated[str, typer.Option(help="Dataset that files of predictions answer.")] = "worldcuisines",
    items: Annotated[Path | None, typer.Option(help="File or folder of its questions.")] = None,
    parser: Annotated[
        str, typer.Option(help="How predictions are read; published: as the dataset's authors do; strict: ours.")
    ] = "published",
    out: Annotated[list[Path] | None, typer.Option(help="Also write FILE.html or FILE.csv; repeat it.")] = None,
    json: Json = False,
) -> None:
    """Compare two runs, two settings or two files of predictions, question by question. No model is asked.

    Differences are B - A in points, with 95 % intervals over images, exact tests and p values adjusted over the rows.
    """
    from m4rag.bench.compare import Predictions, compare_paths

    for path in out or []:
        _writer(path)
    compared = compare_paths(
        a, b, setting=setting, setting_b=setting_b, predictions=Predictions(dataset, items, parser)
    )
    for path in out or []:
        _writer(path)(compared, path)
        say(f"written {path}")
    emit(compared.model_dump(mode="json"), json, lambda console: render(compared, console))


def _writer(path: Path) -> Callable[[Comparisons, Path], None]:
    if path.suffix not in WRITES:
        raise UsageError(f"{path.name!r} is neither .html nor .csv", where="--out")
    if not path.absolute().parent.is_dir():
        raise UsageError("no such folder", where=f"--out {path}")
    if path.suffix == ".csv":
        from m4rag.bench.compare import write_csv

        return write_csv
    from m4rag.bench.compare_page import write_page

    return write_page


def render(compared: Comparisons, console: Console) -> None:
    """Print the comparisons for a person, a table each."""
    for pair in compared.pairs:
        _render(pair, console)
    for name, settings in (("A", compared.settings_a_only), ("B", compared.settings_b_only)):
        if settings:
            console.print(f"[yellow]only {name} has, so not compared: {', '.join(settings)}[/]")
    console.print(
        "macro: mean over varieties. only A, only B: questions that one side alone has right. p: exact McNemar test "
        "with images as its units, adjusted by Holm over the varieties; * below 0.05.",
        style="dim",
    )


def _render(pair: Comparison, console: Console) -> None:
    from rich.table import Table

    overall = pair.overall
    title = (
        f"{pair.dataset}: {overall.n:,} questions about {overall.groups:,} images\nA  {pair.a.label}\nB  {pair.b.label}"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    for column in ("n", "A %", "B %", "B - A", "95 % interval", "only A", "only B", "p"):
        table.add_column(column, justify="right", overflow="fold")
    table.add_row("[bold]all[/]", *_cells(overall))
    macro = pair.macro
    table.add_row("macro", "", "", "", f"{macro.value:+.1f}", f"{macro.low:+.1f} to {macro.high:+.1f}")
    table.add_section()
    for name, cell in sorted(pair.breakdowns["variety"].items(), key=lambda item: -item[1].value):
        table.add_row(name, *_cells(cell))
    console.print(table, "")
    if overall.detectable is not None:
        console.print(
            f"over all questions a true difference of {overall.detectable:.1f} points shows with 80 % probability"
        )
    for name, side in (("A", pair.a), ("B", pair.b)):
        _warn(name, side, console)


def _cells(cell: Difference) -> list[str]:
    p = cell.p if cell.p_holm is None else cell.p_holm
    return [
        f"{cell.n:,}",
        f"{cell.a:.1f}",
        f"{cell.b:.1f}",
        f"[bold]{cell.value:+.1f}[/]" if cell.clear else f"{cell.value:+.1f}",
        f"{cell.low:+.1f} to {cell.high:+.1f}",
        f"{cell.a_only:,}",
        f"{cell.b_only:,}",
        ("<0.001" if p < 0.001 else f"{p:.3f}") + ("*" if cell.clear else " "),
    ]


def _warn(name: str, side: Side, console: Console) -> None:
    if side.unpaired:
        listed = ", ".join(side.unpaired_ids) + (", ..." if side.unpaired > len(side.unpaired_ids) else "")
        console.print(
            f"[yellow]only {name} was asked, so not compared: {side.unpaired:,} questions "
            f"({side.unpaired_right:,} right), {listed}[/]"
        )
    if side.unusable:
        console.print(f"{name}: {side.unusable:,} questions without a valid answer count as wrong")
    if side.note is not None:
        console.print(f"[yellow]{name}: {side.note}[/]")
