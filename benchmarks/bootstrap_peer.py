"""The peer's side of `benchmarks/bootstrap.py`; runs in the peer's own environment and prints seconds as JSON.

Arguments: an .npz with `values` and `groups`, shape (rows,), and `cells`, shape (breakdowns, rows); how many intervals
to time.
"""

import json
import sys
import time

import numpy as np
from inspect_ai.scorer import SampleScore, Score
from inspect_ai.scorer._metrics.std import bootstrap_stderr, ci

RESAMPLES = 2000


def main(path: str, intervals: int) -> None:
    data = np.load(path)
    scores = [
        SampleScore(score=Score(value=float(value)), sample_metadata={"image": int(group)})
        for value, group in zip(data["values"], data["groups"], strict=True)
    ]
    cells = [np.flatnonzero(codes == cell) for codes in data["cells"] for cell in np.unique(codes)]
    picked = [cells[place] for place in np.linspace(0, len(cells) - 1, intervals).astype(int)]
    whole = [np.arange(len(scores))] * max(1, intervals // 20)
    metrics = {
        "bootstrap_stderr": bootstrap_stderr(num_samples=RESAMPLES),
        "ci bootstrap by cluster": ci(method="bootstrap", num_samples=RESAMPLES, cluster="image"),
    }
    seconds = {
        name: {"cells": timed(metric, scores, picked), "whole": timed(metric, scores, whole)}
        for name, metric in metrics.items()
    }
    json.dump(seconds, sys.stdout)


def timed(metric, scores, parts) -> float:
    """Mean seconds an interval; the lists of scores are made beforehand."""
    lists = [[scores[row] for row in rows] for rows in parts]
    start = time.perf_counter()
    for some in lists:
        metric(some)
    return (time.perf_counter() - start) / len(lists)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
