from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import pytest
from run_folders import write_judgements, write_run

from m4rag.bench.joined import read_scores
from m4rag.bench.scoring import Estimate, Scores, SettingScores
from m4rag.errors import BadData
from m4rag.registry.scalars import JUDGED_LIMIT, LIMIT, metric_key, scalars
from m4rag.registry.tables import run_tables


def estimate(value: float, n: int = 10) -> Estimate:
    return Estimate(value=value, low=value - 1, high=value + 1, n=n, groups=n)


def setting(name: str, *, accuracy: float = 50.0, joshi: dict[str, Estimate] | None = None) -> SettingScores:
    classes = {str(number): estimate(50.0) for number in range(6)} if joshi is None else joshi
    cells = {"yo": estimate(20.0), "en": estimate(80.0)}
    dimensions = ("variety", "language", "script", "category", "prompt_type")
    return SettingScores(
        setting=name,
        model="m",
        images="all",
        n=60,
        accuracy=estimate(accuracy, 60),
        macro=estimate(49.0, 60),
        invalid={"unparsable": 2},
        invalid_rate=estimate(3.3, 60),
        breakdowns={**dict.fromkeys(dimensions, cells), "joshi": classes},
        latency_p50_ms=100.0,
        latency_p95_ms=200.0,
        prompt_tokens=1000,
        completion_tokens=100,
    )


def scored(*settings: SettingScores) -> Scores:
    baselines = {"random": estimate(25.0), "majority": estimate(27.0), "text_only": None}
    return Scores(dataset="sample", questions=60, baselines=baselines, settings=settings)


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        (("accuracy", "no_rag"), "accuracy/no_rag"),
        (("recall@5", "de"), "recall_at_5/de"),
        (("accuracy", "multimodal:org/encoder-7b"), "accuracy/multimodal_org_encoder-7b"),
        (("a%b", "c(d)=1,2"), "a_b/c_d__1_2"),
        (("größe", "召回率"), "größe/召回率"),
        (("a\0b", "c\nd"), "a_b/c_d"),
    ],
)
def test_a_metric_key_keeps_what_mlflow_takes_and_replaces_the_rest(parts: tuple[str, ...], key: str) -> None:
    assert metric_key(*parts) == key


@pytest.mark.parametrize("parts", [("accuracy", ""), ("..", "x"), ("accuracy", "."), ("accuracy", "x" * 250)])
def test_a_key_that_mlflow_would_refuse_is_refused_here(parts: tuple[str, ...]) -> None:
    with pytest.raises(BadData, match="no metric key"):
        metric_key(*parts)


@pytest.mark.parametrize(("count", "baseline"), list(product(range(1, 14), (True, False))))
def test_no_run_has_more_than_sixty_scalars_and_what_is_missing_is_named(count: int, baseline: bool) -> None:
    names = (["text_only"] if baseline else []) + [f"multimodal:e{number}" for number in range(count)]
    chosen = scalars(scored(*map(setting, names)), dict.fromkeys(names, 80.0))
    assert len(chosen.values) <= LIMIT
    assert all(metric_key("accuracy", name) in chosen.values for name in names)
    assert all(math.isfinite(value) for value in chosen.values.values())
    assert ("tokens" in chosen.left_out) == (f"prompt_tokens/{metric_key(names[-1])}" not in chosen.values)


def test_the_papers_six_columns_and_the_baseline_keep_their_intervals() -> None:
    names = ("text_only", "no_rag", "oracle", "oracle_query", "caption_query", "multimodal:mmE5", "multimodal:B3")
    chosen = scalars(scored(*map(setting, names)), {})
    assert all({f"accuracy_low/{n}", f"accuracy_high/{n}"} <= chosen.values.keys() for n in map(metric_key, names))
    assert "Joshi class" in chosen.left_out
    assert "low_resource/no_rag" in chosen.values


def test_the_demos_five_settings_keep_every_joshi_class() -> None:
    names = ("text_only", "no_rag", "oracle", "oracle_query", "caption_query")
    chosen = scalars(scored(*map(setting, names)), {})
    assert {f"joshi_{number}/{name}" for number in range(6) for name in names[1:]} <= chosen.values.keys()


def test_low_resource_weighs_the_classes_0_to_2_by_their_questions() -> None:
    joshi = {"0": estimate(10.0, 10), "2": estimate(50.0, 30), "5": estimate(90.0, 20)}
    assert scalars(scored(setting("no_rag", joshi=joshi)), {}).values["low_resource/no_rag"] == pytest.approx(40.0)


def test_the_worst_language_is_recorded() -> None:
    assert scalars(scored(setting("no_rag")), {}).values["worst_language/no_rag"] == 20.0


def test_a_baseline_that_was_not_measured_is_absent_not_zero() -> None:
    values = scalars(scored(setting("no_rag")), {}).values
    assert "baseline/text_only" not in values
    assert values["baseline/majority"] == 27.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_by_its_key(value: float) -> None:
    with pytest.raises(BadData, match="accuracy/no_rag"):
        scalars(scored(setting("no_rag", accuracy=value)), {})


def test_two_settings_that_would_share_a_key_are_refused() -> None:
    with pytest.raises(BadData, match="multimodal_a_b"):
        scalars(scored(setting("multimodal:a/b"), setting("multimodal:a:b")), {})


def test_a_judged_run_gives_its_judge_and_both_rates_at_three_levels_of_relevance(tmp_path: Path) -> None:
    write_run(tmp_path)
    relevance = write_judgements(tmp_path)
    found = scalars(read_scores(tmp_path), {}, relevance)
    assert relevance.auc is not None
    assert found.values["judge_auc"] == relevance.auc.value
    assert relevance.pooled is not None
    above = relevance.pooled.summary[2]
    assert above.retention is not None
    assert found.values["retention_above_4"] == above.retention.value
    assert {key for key in found.values if key.startswith("correction_")} <= {
        f"correction_{level}" for level in ("below_2", "2_4", "above_4")
    }
    assert found.values["judged_relevance/oracle"] == relevance.settings[0].mean
    plain = scalars(read_scores(tmp_path), {})
    assert {key: found.values[key] for key in plain.values} == plain.values
    assert len(found.values) - len(plain.values) <= JUDGED_LIMIT


def test_a_judged_run_has_its_judgements_and_rates_as_tables(tmp_path: Path) -> None:
    plan = write_run(tmp_path)
    relevance = write_judgements(tmp_path)
    scores = read_scores(tmp_path)
    plain = run_tables(tmp_path, plan, scores).by_name
    tables = run_tables(tmp_path, plan, scores, relevance).by_name
    assert tables.keys() - plain.keys() == {"judgements", "relevance"}
    assert tables["judgements"].num_rows == relevance.pairs
    assert tables["relevance"].num_rows == 3 * (8 + 3 + 1)
    assert relevance.pooled is not None
    assert relevance.pooled.overall.effect is not None
    assert tables["relevance"]["effect"].to_pylist()[-1] == relevance.pooled.overall.effect.value
    effects = dict(
        zip(tables["settings"]["setting"].to_pylist(), tables["settings"]["effect"].to_pylist(), strict=True)
    )
    assert effects == {row.setting: row.effect.value if row.effect else None for row in scores.settings}
    added = set(tables["per_question"].column_names) - set(plain["per_question"].column_names)
    assert added == {f"{s}.relevance_{n}" for s in ("oracle", "caption_query") for n in ("mean", "max", "first")}
    means = tables["per_question"]["caption_query.relevance_mean"].to_pylist()
    assert sum(means) / len(means) == pytest.approx(relevance.settings[1].mean)
