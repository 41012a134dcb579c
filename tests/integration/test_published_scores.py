"""The published WorldCuisines tables, cell by cell, from the published predictions."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from m4rag.bench.compare import Predictions, compare_paths
from m4rag.bench.predictions import PredictionScores, score_predictions

MODELS = ("qwen2-vl-7b-instruct", "pangea-7b", "llava-1.6-7b")
# What the published tables call our prompt types and varieties.
PROMPT_TYPES = {
    "1a. Dish Name (No-Context)": "1",
    "1b. Dish Name (Contextualized)": "3",
    "1c. Dish Name (Adversarial)": "4",
    "2. Regional Cuisine": "2",
}
VARIETIES = {"su": "su_loma", "si": "si_formal_spoken"}
WITHIN = 0.01


def score(shared_data: Path, model: str, parser: str) -> PredictionScores:
    predictions = shared_data / "predictions" / f"{model}.parquet"
    return score_predictions("worldcuisines", shared_data / "test_large.parquet", predictions, parser)


@pytest.mark.parametrize("model", MODELS)
def test_every_published_cell_is_reproduced(shared_data: Path, model: str) -> None:
    published = json.loads((shared_data / "predictions" / f"{model}.published.json").read_text())
    scores = score(shared_data, model, "published").payload()
    assert scores["n"] == published["num_samples"] == 60_000
    assert scores["accuracy"] == pytest.approx(published["avg_score_all"], abs=WITHIN)
    cells = 0
    for name, kind in PROMPT_TYPES.items():
        mine = scores["by_prompt_type"][kind]
        assert mine["macro"] == pytest.approx(published[name].pop("avg_score"), abs=WITHIN)
        assert len(mine["by_variety"]) == len(published[name]) == 30
        for variety, value in published[name].items():
            assert mine["by_variety"][VARIETIES.get(variety, variety)] == pytest.approx(value, abs=WITHIN), (
                name,
                variety,
            )
            cells += 1
    assert cells == 120


@pytest.mark.parametrize(
    ("model", "unreadable", "lucky"), [("qwen2-vl-7b-instruct", 0, 0), ("pangea-7b", 657, 2), ("llava-1.6-7b", 1, 0)]
)
def test_strict_reading_gains_the_answers_that_name_the_option(
    shared_data: Path, model: str, unreadable: int, lucky: int
) -> None:
    """`lucky`: right answers that the published rules found in the first digit of a sentence."""
    items = pq.read_table(shared_data / "test_large.parquet", columns=["qa_id", "lang", "answer"])
    predictions = pq.read_table(shared_data / "predictions" / f"{model}.parquet")
    joined = items.join(predictions, ["qa_id", "lang"])
    named = pc.sum(pc.equal(joined["prediction"], joined["answer"])).as_py()
    ours, theirs = score(shared_data, model, "strict"), score(shared_data, model, "published")
    assert sum(ours.invalid.values()) == ours.invalid["unparsable"] == unreadable
    assert round((ours.accuracy.value - theirs.accuracy.value) * 600) == named - lucky


def test_every_interval_holds_its_value_and_tells_images_from_questions(shared_data: Path) -> None:
    scores = score(shared_data, MODELS[0], "published")
    estimates = [scores.accuracy, scores.macro, *scores.macro_by_prompt_type.values()]
    estimates += [cell for cells in scores.by_variety.values() for cell in cells.values()]
    assert all(estimate.low < estimate.value < estimate.high for estimate in estimates)
    assert scores.accuracy.groups == 732
    # 60,000 independent questions would give an interval of 0.8 points; 732 images do not.
    assert 3 < scores.accuracy.high - scores.accuracy.low < 6


def test_two_published_models_compared(shared_data: Path) -> None:
    tables = [json.loads((shared_data / "predictions" / f"{model}.published.json").read_text()) for model in MODELS[:2]]
    files = [shared_data / "predictions" / f"{model}.parquet" for model in MODELS[:2]]
    how = Predictions("worldcuisines", shared_data / "test_large.parquet")
    (pair,) = compare_paths(files[1], files[0], predictions=how).pairs
    assert pair.overall.value == pytest.approx(tables[0]["avg_score_all"] - tables[1]["avg_score_all"], abs=2 * WITHIN)
    assert (pair.overall.n, pair.overall.groups, len(pair.breakdowns["variety"])) == (60_000, 732, 30)
    # Half as wide as what two single intervals would leave: answers to the same questions go together.
    assert pair.overall.high - pair.overall.low < 4
    # 60,000 questions about 732 images are far from 60,000 observations.
    assert pair.overall.mcnemar < 1e-100 < pair.overall.p < 1e-6
