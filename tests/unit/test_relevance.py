"""Retention, correction and the judge's AUC: against their definitions, counted by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folders import write_judgements, write_run

from m4rag.bench.judgements import aggregate
from m4rag.bench.relevance import EDGES, RELEVANCE, Observed, auc, by_relevance, read_relevance, write_relevance
from m4rag.errors import BadData

ROWS = st.lists(st.tuples(st.sampled_from((1.0, 1.2, 1.5, 2.0, 3.4, 4.0, 4.2, 5.0)), st.booleans(), st.booleans()))


def observed(rows: list[tuple[float, bool, bool]], questions: list[int] | None = None) -> Observed:
    relevance, before, after = zip(*rows, strict=True)
    number = np.arange(len(rows)) if questions is None else np.array(questions)
    return Observed(np.array(relevance), np.array(before), np.array(after), number, number)


@given(ROWS.filter(bool))
def test_m4rag_fault_28_accuracy_is_what_is_retained_plus_what_is_corrected(
    rows: list[tuple[float, bool, bool]],
) -> None:
    whole = by_relevance("x", observed(rows)).overall
    retention, correction = whole.retention, whole.correction
    before = sum(right for _, right, _ in rows) / len(rows)
    after = 100 * sum(right for _, _, right in rows) / len(rows)
    kept = retention.value if retention else 0.0
    mended = correction.value if correction else 0.0
    assert kept * before + mended * (1 - before) == pytest.approx(after)
    assert (retention is None) == (before == 0)
    assert (correction is None) == (before == 1)


@given(ROWS.filter(bool))
def test_every_question_is_in_one_bin_and_in_one_range(rows: list[tuple[float, bool, bool]]) -> None:
    found = by_relevance("x", observed(rows))
    assert sum(part.n for part in found.bins) == sum(part.n for part in found.summary) == found.n == len(rows)
    for part in found.bins:
        inside = [x for x, _, _ in rows if part.low <= x and (x < part.high or part.high == EDGES[-1])]
        assert part.n == len(inside)
    below, middle, above = (part.n for part in found.summary)
    assert below == sum(x < 2 for x, _, _ in rows)
    assert above == sum(x > 4 for x, _, _ in rows)
    assert middle == sum(2 <= x <= 4 for x, _, _ in rows)


def test_a_rate_needs_five_questions_and_is_all_of_them_or_part_of_them() -> None:
    rows = [(1.0, True, number < 7) for number in range(10)] + [(1.0, False, True)] * 4
    (first, *others) = by_relevance("x", observed(rows)).bins
    assert first.retention is not None
    assert (first.retention.value, first.retention.n) == (70, 10)
    assert 25 < first.retention.low < 50
    assert 85 < first.retention.high <= 100
    assert first.correction is None
    assert first.effect is not None
    assert (first.effect.a_only, first.effect.b_only, first.effect.n) == (3, 4, 14)
    assert all(part.retention is None and part.effect is None and part.n == 0 for part in others)
    whole = by_relevance("x", observed(rows)).overall
    assert whole.correction is not None
    # Four of four: the resamples are all alike, so the interval is Wilson's.
    assert (whole.correction.n, whole.correction.value, whole.correction.high) == (4, 100, 100)
    assert whole.correction.low == pytest.approx(51.01, abs=0.01)


def test_a_question_in_two_settings_is_no_second_observation() -> None:
    once = observed([(1.0, True, number < 7) for number in range(10)])
    twice = observed([(1.0, True, number % 10 < 7) for number in range(20)], [n % 10 for n in range(20)])
    single, double = (by_relevance("x", rows).overall.retention for rows in (once, twice))
    assert single is not None
    assert double is not None
    assert (double.n, double.low, double.high) == (20, single.low, single.high)
    four = observed([(1.0, True, True)] * 8, [n % 4 for n in range(8)])
    assert by_relevance("x", four).bins[0].retention is None


def test_questions_of_one_image_are_less_sure_than_questions_of_many() -> None:
    rows = [(1.0, True, number % 10 < 7) for number in range(60)]
    many, few = observed(rows), observed(rows)
    few = Observed(few.relevance, few.before, few.after, few.questions, few.questions % 10)
    apart, together = (by_relevance("x", given).overall.retention for given in (many, few))
    assert apart is not None
    assert together is not None
    assert together.value == apart.value
    assert together.high - together.low > 1.8 * (apart.high - apart.low)


def test_the_change_of_a_range_is_that_of_its_questions() -> None:
    rows = [(1.0, True, number >= 30) for number in range(40)] + [(4.5, False, True)] * 30 + [(3.0, True, True)] * 9
    below, middle, above = by_relevance("x", observed(rows)).summary
    assert below.effect is not None
    assert above.effect is not None
    assert middle.effect is not None
    assert (below.effect.value, middle.effect.value, above.effect.value) == (-75, 0, 100)
    assert (below.effect.clear, middle.effect.clear, above.effect.clear) == (True, False, True)
    assert below.effect.p_holm == pytest.approx(3 * below.effect.p)


def test_without_answers_without_context_there_are_no_rates() -> None:
    rows = Observed(np.array([1.0] * 9), None, np.array([True] * 9), np.arange(9), np.arange(9))
    found = by_relevance("x", rows, unjudged=2)
    assert (found.before, found.after, found.unjudged) == (None, 100, 2)
    assert found.overall.retention is None


@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.integers(0, 3)), min_size=2).filter(
        lambda rows: len({gold for _, gold, _ in rows}) == 2
    )
)
def test_the_auc_is_the_share_of_pairs_in_which_gold_is_above(rows: list[tuple[int, bool, int]]) -> None:
    scores, gold, groups = (np.array(column) for column in zip(*rows, strict=True))
    found = auc(scores, gold, groups, resamples=20)
    assert found is not None
    pairs = [(a > b) + (a == b) / 2 for a in scores[gold] for b in scores[~gold]]
    assert found.value == pytest.approx(np.mean(pairs))
    assert 0 <= found.low <= found.high <= 1
    assert (found.gold, found.other, found.groups) == (gold.sum(), (~gold).sum(), len(set(groups)))


def test_the_auc_of_few_images_is_less_sure_than_that_of_many() -> None:
    random = np.random.default_rng(0)
    gold = random.random(4000) < 0.3
    mood = random.normal(size=8)[np.arange(4000) % 8]  # passages of one image are scored alike
    scores = np.clip(np.round(2 + 1.2 * gold + mood * gold + random.normal(size=4000)), 1, 5)
    few, many = (auc(scores, gold, np.arange(4000) % count, resamples=300) for count in (8, 4000))
    assert few is not None
    assert many is not None
    assert few.value == many.value
    assert few.high - few.low > 2 * (many.high - many.low)


def test_passages_of_one_kind_have_no_auc() -> None:
    assert auc(np.array([1, 5]), np.array([True, True]), np.array([0, 1])) is None


def test_m4rag_fault_28_a_questions_relevance_is_over_the_passages_that_have_a_score() -> None:
    scores = {("q", "b"): 2, ("q", "c"): 5, ("other", "a"): 1}
    found = aggregate("q", ["a", "b", "c"], scores)
    assert found is not None
    assert (found.mean, found.max, found.first) == (3.5, 5, None)
    assert aggregate("q", ["b"], scores).first == 2  # type: ignore[union-attr]
    assert aggregate("q", [], scores) is None
    assert aggregate("q", ["a"], scores) is None


def test_a_run_that_nobody_judged_has_no_relevance(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / RELEVANCE).write_text("{}")
    assert write_relevance(tmp_path) is None
    assert read_relevance(tmp_path) is None
    assert not (tmp_path / RELEVANCE).exists()


def test_a_judged_run_is_measured_setting_by_setting_and_together(tmp_path: Path) -> None:
    write_run(tmp_path)
    relevance = write_judgements(tmp_path)
    assert read_relevance(tmp_path) == relevance
    assert [setting.setting for setting in relevance.settings] == ["oracle", "caption_query"]
    assert relevance.pooled is not None
    assert relevance.pooled.n == sum(setting.n for setting in relevance.settings)
    scores = {row["setting"]: row for row in json.loads((tmp_path / "scores.json").read_text())["settings"]}
    (searched,) = (setting for setting in relevance.settings if setting.setting == "caption_query")
    assert searched.unjudged == 0
    assert searched.after == pytest.approx(scores["caption_query"]["accuracy"]["value"])
    assert searched.before == pytest.approx(scores["no_rag"]["accuracy"]["value"])
    assert relevance.auc is not None
    assert relevance.auc.value > 0.75
    assert relevance.failed.keys() == {"unparsable"}


def test_a_judge_that_never_answers_leaves_a_run_that_can_be_scored(tmp_path: Path) -> None:
    write_run(tmp_path)
    relevance = write_judgements(tmp_path, failed=1.0)
    assert (relevance.settings, relevance.whole, relevance.auc) == ((), None, None)
    assert sum(relevance.failed.values()) == relevance.pairs


def test_relevance_of_other_judgements_or_answers_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_judgements(tmp_path)
    kept = (tmp_path / RELEVANCE).read_bytes()
    shutil.rmtree(tmp_path / "judgements")
    write_judgements(tmp_path, seed=8)
    (tmp_path / RELEVANCE).write_bytes(kept)
    with pytest.raises(BadData, match=r"other judgements.*m4rag bench score"):
        read_relevance(tmp_path)
    shutil.rmtree(tmp_path / "answers")
    write_run(tmp_path, seed=8)
    with pytest.raises(BadData, match=r"of other answers.*m4rag bench judge"):
        write_relevance(tmp_path)
