"""How long 500 cluster-bootstrap intervals take, beside inspect_ai.

    python benchmarks/bootstrap.py                                   # ours alone
    python -m venv /tmp/inspect && /tmp/inspect/bin/pip install inspect_ai
    python benchmarks/bootstrap.py --inspect-python /tmp/inspect/bin/python

Two workloads of 20,748 rows about 5,000 images (the size of CVQA in both its languages), 2,000 resamples and 500
intervals; nothing is imported while the clock runs:

    cells    five breakdowns of 100 cells each over the same rows: what scoring and comparing a run do
    whole    500 columns of answers to all rows: one interval over everything for each of 500 models or settings

The peer is timed on a part of the intervals (`--peer-intervals`) and its time is scaled to 500. Its `bootstrap_stderr`
resamples questions as if they were independent and returns a standard error only; its `ci` resamples images, as ours.
"""

from __future__ import annotations

import json as jsonlib
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import scipy.sparse
import scipy.special  # noqa: F401 - as above, imported before anything is timed
import typer
from rich.console import Console
from rich.table import Table

from m4rag.bench.scoring import everything
from m4rag.bench.statistics import RESAMPLES, Partition, group_sums, resampled_means

ROWS, IMAGES, BREAKDOWNS, CELLS = 20_748, 5_000, 5, 100
INTERVALS = BREAKDOWNS * CELLS
LABELS = tuple(map(str, range(CELLS)))
REPEATS = 5
PEER = Path(__file__).with_name("bootstrap_peer.py")


def data() -> dict[str, np.ndarray]:
    """Answers of which those about one image agree more than chance."""
    random = np.random.default_rng(0)
    groups = np.concatenate([np.arange(IMAGES), random.integers(0, IMAGES, ROWS - IMAGES)])
    ease = random.beta(2.4, 1.6, IMAGES)
    return {
        "values": (random.random(ROWS) < ease[groups]).astype(float),
        "groups": groups,
        "cells": random.integers(0, CELLS, (BREAKDOWNS, ROWS)),
    }


def cells(made: dict[str, np.ndarray]) -> int:
    parts = {str(number): Partition(LABELS, codes) for number, codes in enumerate(made["cells"])}
    sums = {name: group_sums(made["values"], made["groups"], part) for name, part in parts.items()}
    draws = resampled_means(sums)
    return sum(len(sums[name].estimates(draws[name])) for name in sums)


def whole(made: dict[str, np.ndarray]) -> int:
    sums = {str(n): group_sums(made["values"], made["groups"], everything(ROWS)) for n in range(INTERVALS)}
    draws = resampled_means(sums)
    return sum(len(sums[name].estimates(draws[name])) for name in sums)


def seconds(work: Callable[[dict[str, np.ndarray]], int], made: dict[str, np.ndarray]) -> float:
    """Best of several, because the machine may be doing other things."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        assert work(made) == INTERVALS
        times.append(time.perf_counter() - start)
    return min(times)


def peer(python: Path, made: dict[str, np.ndarray], intervals: int) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        np.savez(path, **made)
        done = subprocess.run([python, PEER, path, str(intervals)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{python} {PEER.name} failed: {done.stderr.strip().splitlines()[-1]}")
    return jsonlib.loads(done.stdout.splitlines()[-1])


def main(
    inspect_python: Annotated[Path | None, typer.Option(help="Python of an environment with inspect_ai.")] = None,
    peer_intervals: Annotated[int, typer.Option(help="Intervals to time the peer on.")] = 40,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    made = data()
    result: dict[str, Any] = {
        "rows": ROWS,
        "images": IMAGES,
        "intervals": INTERVALS,
        "resamples": RESAMPLES,
        "seconds": {"m4rag": {"cells": seconds(cells, made), "whole": seconds(whole, made)}},
    }
    if inspect_python is not None:
        each = peer(inspect_python, made, peer_intervals)
        result["seconds"] |= {
            f"inspect_ai {name}": {work: INTERVALS * cost for work, cost in costs.items()}
            for name, costs in each.items()
        }
    ours = result["seconds"]["m4rag"]
    result["ratio"] = {
        name: {work: cost / ours[work] for work, cost in costs.items()} for name, costs in result["seconds"].items()
    }
    if json:
        print(jsonlib.dumps(result, indent=2))
        return
    table = Table(
        title=f"{INTERVALS} intervals, {ROWS:,} rows, {IMAGES:,} images, {RESAMPLES:,} resamples", title_justify="left"
    )
    for column in ("", "cells s", "ratio", "whole s", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for name, costs in result["seconds"].items():
        figures = [(costs[work], result["ratio"][name][work]) for work in ("cells", "whole")]
        table.add_row(name, *[text for cost, ratio in figures for text in (f"{cost:.2f}", f"{ratio:.0f}")])
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
