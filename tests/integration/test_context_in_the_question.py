"""Retention and correction on published predictions: a quarter of the WorldCuisines questions say where a dish is
eaten, a quarter say it wrongly, and a quarter say nothing, about the same images in the same languages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from m4rag.bench.paired import against
from m4rag.bench.predictions import read_choices
from m4rag.bench.rates import kept_and_mended
from m4rag.bench.statistics import everything

NOTHING, TRUE, MISLEADING = "1", "3", "4"


@pytest.mark.parametrize(
    ("model", "true", "misleading"),
    [
        ("qwen2-vl-7b-instruct", (80.4, 41.1, 1), (68.1, 25.2, -1)),
        ("pangea-7b", (77.4, 43.0, 1), (64.3, 28.2, 0)),
        ("llava-1.6-7b", (65.5, 28.8, 1), (56.2, 21.5, 0)),
    ],
)
def test_true_context_mends_more_than_misleading_context(
    shared_data: Path, model: str, true: tuple[float, float, int], misleading: tuple[float, float, int]
) -> None:
    predictions = shared_data / "predictions" / f"{model}.parquet"
    read = read_choices("worldcuisines", shared_data / "test_large.parquet", predictions, "published")
    keys = list(zip(read.items["group"].to_pylist(), read.items["language"].to_pylist(), strict=True))
    kinds = np.array(read.items["prompt_type"].to_pylist())
    rows = {kind: {keys[row]: row for row in np.flatnonzero(kinds == kind)} for kind in (NOTHING, TRUE, MISLEADING)}
    for kind, (retention, correction, direction) in ((TRUE, true), (MISLEADING, misleading)):
        common = sorted(rows[NOTHING].keys() & rows[kind].keys())
        assert len(common) > 9_000
        before, after = (read.right[[rows[which][key] for key in common]] for which in (NOTHING, kind))
        groups = np.unique([image for image, _ in common], return_inverse=True)[1]
        found = kept_and_mended(before, after, groups, everything(len(common)))["all"]
        assert found.retention is not None
        assert found.correction is not None
        assert found.retention.value == pytest.approx(retention, abs=0.1)
        assert found.correction.value == pytest.approx(correction, abs=0.1)
        accuracy = found.retention.value * before.mean() + found.correction.value * (1 - before.mean())
        assert accuracy == pytest.approx(100 * after.mean())
        change = against(before, {"context": after}, groups)["context"]
        assert change.clear * np.sign(change.value) == direction
