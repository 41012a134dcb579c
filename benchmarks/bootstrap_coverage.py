"""How often a 95 % interval holds the truth, with few and with many questions a language.

    python benchmarks/bootstrap_coverage.py

Each trial makes a benchmark of 30 languages with true accuracies drawn from Beta(4, 2) (mean 67 %), questions about one
image agreeing more than chance, and a second model that answers three questions of four like the first. Counted is how
often the interval of a language's accuracy, and of the difference of the two models, holds the true value. `plain` are
the 2.5 and 97.5 percentiles of the same draws (for an accuracy without variation Wilson's interval, as in ours).
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from m4rag.bench.paired import interval_of_difference
from m4rag.bench.statistics import RESAMPLES, Partition, group_sums, interval, resampled_means, wilson

LANGUAGES = 30
ALIKE = 0.75
LABELS = tuple(f"{number:02}" for number in range(LANGUAGES))
DESIGNS = ((20, 1), (20, 2), (200, 1), (200, 2), (200, 10))
"""Questions a language, and questions a language about one image."""


def trial(random: np.random.Generator, images: int, each: int) -> Iterator[tuple[str, bool, float]]:
    """(interval, whether it holds the truth, its width in points) of every language."""
    first, other = random.beta(4, 2, (2, LANGUAGES))
    ease = random.beta(4 * first, 4 * (1 - first), (images, LANGUAGES))
    shape = (each, images, LANGUAGES)
    a = random.random(shape) < ease
    b = np.where(random.random(shape) < ALIKE, a, random.random(shape) < other)
    cells = Partition(LABELS, np.tile(np.arange(LANGUAGES), each * images))
    groups = np.tile(np.repeat(np.arange(images), LANGUAGES), each)
    values = {"accuracy": a.ravel().astype(float), "difference": b.ravel() - a.ravel().astype(float)}
    truths = {"accuracy": first, "difference": (1 - ALIKE) * (other - first)}
    for name, column in values.items():
        sums = group_sums(column, groups, cells)
        draws = resampled_means({name: sums}, seed=int(random.integers(2**32)))[name]
        for cell, truth in enumerate(truths[name]):
            drawn = draws[:, cell]
            if name == "accuracy":
                unsure = wilson(sums.means()[cell], images)
                ours = interval(drawn, images) or unsure
            else:
                unsure = (0.0, 0.0)
                ours = interval_of_difference(drawn, each * images, images)
            plain = np.percentile(drawn, [2.5, 97.5]) if np.ptp(drawn) else unsure
            for kind, (low, high) in {"ours": ours, "plain": plain}.items():
                yield f"{name}, {kind}", bool(low <= truth <= high), 100 * float(high - low)


def measure(questions: int, each: int, trials: int) -> dict[str, dict[str, float]]:
    random = np.random.default_rng([questions, each])
    held: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    for _ in range(trials):
        for name, holds, width in trial(random, questions // each, each):
            held.setdefault(name, []).append(holds)
            widths.setdefault(name, []).append(width)
    return {
        name: {
            "coverage": 100 * float(np.mean(found)),
            "standard_error": 100 * float(np.std(found) / len(found) ** 0.5),
            "width": float(np.mean(widths[name])),
        }
        for name, found in held.items()
    }


def main(
    trials: Annotated[int, typer.Option(help="Benchmarks of 30 languages a design.")] = 200,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    results = {
        f"{questions} questions, {questions // each} images": measure(questions, each, trials)
        for questions, each in DESIGNS
    }
    if json:
        print(jsonlib.dumps(results, indent=2))
        return
    table = Table(title=f"Coverage of 95 % intervals in %, {RESAMPLES:,} draws (width in points)", title_justify="left")
    table.add_column("a language has", no_wrap=True)
    for column in next(iter(results.values())):
        table.add_column(column, justify="right")
    for design, found in results.items():
        table.add_row(design, *[f"{cell['coverage']:.1f} ({cell['width']:.1f})" for cell in found.values()])
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
