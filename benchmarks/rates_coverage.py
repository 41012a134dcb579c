"""How often a 95 % interval of retention or correction holds the truth, with few and with many questions an image.

    python benchmarks/rates_coverage.py

Each trial makes a run in which half the questions are right without context. What context does is alike for the
questions of one image: retention is drawn for each image around 85 %, correction around 35 %. `questions` is Wilson's
interval, which takes every question to be independent.
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from m4rag.bench.rates import kept_and_mended
from m4rag.bench.statistics import everything, wilson

TRUTH = {"retention": 0.85, "correction": 0.35}
DESIGNS = ((20, 4), (60, 4), (60, 15), (300, 4))
"""Images, and questions about each."""


def trial(random: np.random.Generator, images: int, each: int) -> Iterator[tuple[str, bool]]:
    """(interval, whether it holds the truth) of both rates."""
    groups = np.repeat(np.arange(images), each)
    before = random.random(len(groups)) < np.repeat(random.beta(2, 2, images), each)
    kept, mended = (np.repeat(random.beta(6 * rate, 6 * (1 - rate), images), each) for rate in TRUTH.values())
    after = random.random(len(groups)) < np.where(before, kept, mended)
    seed = int(random.integers(2**32))
    (found,) = kept_and_mended(before, after, groups, everything(len(groups)), seed=seed).values()
    for name, truth in TRUTH.items():
        rate = getattr(found, name)
        yield f"{name}, images", rate.low <= 100 * truth <= rate.high
        low, high = wilson(rate.value / 100, rate.n)
        yield f"{name}, questions", low <= truth <= high


def main(trials: int = 2000, json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Print the coverage in percent of every kind of interval in every design."""
    coverage: dict[str, dict[str, float]] = {}
    for images, each in DESIGNS:
        random = np.random.default_rng([images, each])
        held: dict[str, list[bool]] = {}
        for _ in range(trials):
            for name, holds in trial(random, images, each):
                held.setdefault(name, []).append(holds)
        coverage[f"{images} images, {each} questions each"] = {k: 100 * float(np.mean(v)) for k, v in held.items()}
    if json:
        print(jsonlib.dumps(coverage, indent=2))
        return
    names = list(next(iter(coverage.values())))
    table = Table("a run has", *names, title=f"coverage of nominal 95 % intervals, {trials:,} runs a row", box=None)
    for design, shares in coverage.items():
        table.add_row(design, *(f"{shares[name]:.1f}" for name in names))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
