"""A comparison as one HTML file, in the style of the report: no network, no JavaScript, any width, light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from m4rag import __version__
from m4rag.bench.compare import Comparison, Comparisons
from m4rag.bench.findings import Finding
from m4rag.bench.paired import Difference
from m4rag.bench.report import JOSHI, Tongue, render_page, tongue
from m4rag.datasets import DATASETS
from m4rag.datasets.worldcuisines import PROMPT_TYPES
from m4rag.languages import SCRIPTS, lookup
from m4rag.manifests import write_atomic

SCALES = (2, 5, 10, 20, 40, 60, 80, 100)
"""What the ends of a plot may stand for, in points."""
TITLES = {
    "language": "Language",
    "joshi": "Joshi resource class",
    "script": "Script",
    "prompt_type": "Kind of question",
}


@dataclass(frozen=True)
class Row:
    """One line of the plot and of the table.

    Attributes:
        label: Name in English.
        tongue: The language, None where the row is of none.
        cell: The difference.
        verdict: `ahead` (B is clearly better), `behind` or `unclear`.
        p: The p value as the table shows it.
    """

    label: str
    tongue: Tongue | None
    cell: Difference
    verdict: str
    p: str


@dataclass(frozen=True)
class Section:
    """One comparison as the page shows it: its scale is the number of points at both ends of its plot."""

    pair: Comparison
    finding: Finding
    scale: int
    overall: Row
    varieties: tuple[Row, ...]
    others: tuple[tuple[str, tuple[Row, ...]], ...]

    def place(self, points: float) -> float:
        """Where a difference stands, in percent of the plot's width."""
        return 50 + 50 * points / self.scale


def write_page(compared: Comparisons, path: Path) -> None:
    """Write comparisons as a page.

    Args:
        compared: The comparisons, at least one.
        path: The file; replaced atomically.
    """
    sections = [_section(pair) for pair in compared.pairs]
    view = {
        "compared": compared,
        "sections": sections,
        "first": sections[0],
        "dataset": DATASETS.get(sections[0].pair.dataset),
        "version": __version__,
    }
    write_atomic(path, render_page("compare.html.jinja", view).encode())


def verdict(pair: Comparison) -> Finding:
    """Whether B is better than A, as far as the exact test over images allows to say."""
    cell, a, b = pair.overall, pair.a.label, pair.b.label
    support = (
        f"{b} has {cell.b:.1f} % of {cell.n:,} questions right, {a} has {cell.a:.1f} %: a difference of "
        f"{cell.value:+.1f} points, 95 % interval {cell.low:+.1f} to {cell.high:+.1f}. Only the first is right on "
        f"{cell.b_only:,} questions, only the second on {cell.a_only:,} (p {_p(cell)})."
    )
    if cell.detectable is not None:
        support += (
            f" Such questions show a true difference of {cell.detectable:.1f} points with 80 % probability, a smaller "
            "one less often."
        )
    if pair.a.note or pair.b.note:
        return Finding("These numbers say nothing about a model's quality", support)
    if not cell.clear:
        return Finding(f"No clear difference between {a} and {b}", support)
    better, worse = (b, a) if cell.value > 0 else (a, b)
    return Finding(f"{better} is better than {worse} by {abs(cell.value):.1f} points", support)


def _section(pair: Comparison) -> Section:
    varieties = tuple(_row(_variety(code), code, cell) for code, cell in _sorted(pair.breakdowns["variety"]))
    cells = [pair.overall, *(row.cell for row in varieties)]
    furthest = max(abs(end) for cell in cells for end in (cell.low, cell.high))
    others = tuple(
        (title, tuple(_row(_label(dimension, name), None, cell) for name, cell in _sorted(pair.breakdowns[dimension])))
        for dimension, title in TITLES.items()
        if dimension in pair.breakdowns
    )
    scale = next(scale for scale in SCALES if scale >= min(furthest, SCALES[-1]))
    return Section(pair, verdict(pair), scale, _row("All questions", None, pair.overall), varieties, others)


def _sorted(cells: dict[str, Difference]) -> Iterable[tuple[str, Difference]]:
    return sorted(cells.items(), key=lambda item: -item[1].value)


def _row(label: str, code: str | None, cell: Difference) -> Row:
    direction = "unclear" if not cell.clear else "ahead" if cell.value > 0 else "behind"
    return Row(label, None if code is None else tongue(code), cell, direction, _p(cell))


def _p(cell: Difference) -> str:
    p = cell.p if cell.p_holm is None else cell.p_holm
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def _variety(code: str) -> str:
    return lookup(code).name


def _label(dimension: str, key: str) -> str:
    if dimension == "language":
        return lookup(key).language.name
    if dimension == "joshi":
        return f"{key} · {JOSHI[key].partition(':')[0]}"
    if dimension == "script":
        return SCRIPTS.get(key, key)
    return f"{key} · {PROMPT_TYPES[key]}" if key in PROMPT_TYPES else key or "(none)"
