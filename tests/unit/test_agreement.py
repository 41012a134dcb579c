"""Weighted kappa and Krippendorff's alpha: against a library, the published example, and their definitions."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from m4rag.bench.agreement import confusion, krippendorff_alpha, weighted_kappa

# Krippendorff 2011: four observers, twelve units, 0 where an observer skipped one; the ordinal alpha is 0.815.
PUBLISHED = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3),
    (0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0),
)

SCORES = st.integers(1, 5)
PAIRS = st.lists(st.tuples(SCORES, SCORES, st.integers(0, 6)), min_size=2, max_size=60)


def columns(rows: list[tuple[int, ...]]) -> list[np.ndarray]:
    return [np.array(column) for column in zip(*rows, strict=True)]


@given(PAIRS)
def test_kappa_agrees_with_scikit_learn(rows: list[tuple[int, int, int]]) -> None:
    judge, people, images = columns(rows)
    found = weighted_kappa(judge, people, images, resamples=50)
    if len({*judge, *people}) == 1:
        assert found.value is None
        assert found.words == "not defined (one score only)"
        return
    expected = cohen_kappa_score(judge, people, labels=[1, 2, 3, 4, 5], weights="quadratic")
    assert found.value == pytest.approx(expected)
    assert found.groups == len(set(images))


def test_alpha_is_that_of_the_published_example() -> None:
    rows = [(score, unit) for observer in PUBLISHED for unit, score in enumerate(observer) if score]
    scores, units = columns(rows)
    found = krippendorff_alpha(scores, units, units)
    assert found.value == pytest.approx(0.815, abs=0.0005)
    assert found.groups == 11  # the twelfth unit has one score, which agrees with nothing
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


@given(st.lists(st.tuples(SCORES, st.integers(0, 8)), min_size=2, max_size=40))
def test_alpha_is_one_minus_observed_over_expected_disagreement(rows: list[tuple[int, int]]) -> None:
    by_unit: dict[int, list[int]] = {}
    for score, unit in rows:
        by_unit.setdefault(unit, []).append(score)
    by_unit = {unit: scores for unit, scores in by_unit.items() if len(scores) > 1}
    values = [score for scores in by_unit.values() for score in scores]
    assume(len(set(values)) > 1)

    def distance(c: int, k: int) -> float:
        low, high = min(c, k), max(c, k)
        between = sum(low <= value <= high for value in values)
        return (between - (values.count(c) + values.count(k)) / 2) ** 2

    observed = sum(
        distance(c, k) / (len(scores) - 1) for scores in by_unit.values() for c, k in permutations(scores, 2)
    ) / len(values)
    expected = sum(distance(c, k) for c, k in permutations(values, 2)) / (len(values) * (len(values) - 1))
    scores, units = columns(rows)
    assert krippendorff_alpha(scores, units, units // 3, resamples=20).value == pytest.approx(1 - observed / expected)


@given(PAIRS, st.randoms(use_true_random=False))
def test_neither_depends_on_the_order_of_rows_or_raters(rows: list[tuple[int, int, int]], chance: object) -> None:
    shuffled = list(rows)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    (a, b, images), (c, d, others) = columns(rows), columns(shuffled)
    one, two = weighted_kappa(a, b, images, resamples=20), weighted_kappa(d, c, others, resamples=20)
    assert one.value == (None if two.value is None else pytest.approx(two.value))
    assert one.words == two.words


def test_perfect_agreement_is_one_and_opposite_scores_are_below_chance() -> None:
    scores, images = np.array([1, 2, 3, 4, 5] * 4), np.arange(20)
    same = weighted_kappa(scores, scores, images)
    assert (same.value, same.low, same.high) == (1, None, None)
    assert same.words == "1.00 (too little for an interval)"
    opposite = weighted_kappa(scores, 6 - scores, images)
    assert opposite.value == pytest.approx(-1)


def test_a_disagreement_weighs_by_its_square() -> None:
    judge, images = np.array([1, 2, 3, 4, 5] * 10), np.arange(50)
    near, far = judge.copy(), judge.copy()
    near[0], far[0] = 2, 5
    kappas = [weighted_kappa(judge, people, images).value for people in (near, far)]
    assert kappas[0] is not None
    assert kappas[1] is not None
    assert 1 > kappas[0] > kappas[1]
    assert (1 - kappas[1]) / (1 - kappas[0]) == pytest.approx(16, rel=0.1)


def test_the_confusion_table_counts_every_label_once() -> None:
    table = confusion(np.array([1, 1, 5]), np.array([1, 2, 4]), np.array([7, 7, 9]))
    assert table.shape == (2, 5, 5)
    assert table.sum() == 3
    assert (table[0, 0, 0], table[0, 0, 1], table[1, 4, 3]) == (1, 1, 1)


def ratings(chance: np.random.Generator, images: int, each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A judge and a person who see a passage's worth through noise; the judge errs alike on passages of one image."""
    groups = np.repeat(np.arange(images), each)
    worth = chance.normal(3, 1.2, images * each)
    shared = np.repeat(chance.normal(0, 0.8, images), each)
    judge, person = (worth + mistake + chance.normal(0, 0.6, images * each) for mistake in (shared, 0))
    first, second = (np.clip(np.rint(scores), 1, 5).astype(int) for scores in (judge, person))
    return first, second, groups


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    chance = np.random.default_rng(3)
    first, second, groups = ratings(chance, 40_000, 5)
    rows = np.arange(len(first))
    truth = {
        "kappa": weighted_kappa(first, second, groups, resamples=2).value,
        "alpha": krippendorff_alpha(np.r_[first, second], np.r_[rows, rows], np.r_[groups, groups], resamples=2).value,
    }
    held = dict.fromkeys(truth, 0)
    times = 300
    for _ in range(times):
        first, second, groups = ratings(chance, 40, 5)
        rows = np.arange(len(first))
        found = {
            "kappa": weighted_kappa(first, second, groups, resamples=400),
            "alpha": krippendorff_alpha(np.r_[first, second], np.r_[rows, rows], np.r_[groups, groups], resamples=400),
        }
        for name, each in found.items():
            held[name] += each.low <= truth[name] <= each.high  # type: ignore[operator]
    # 95 % expected; 300 trials vary by 1.3 points.
    assert all(0.90 <= count / times <= 0.985 for count in held.values()), held
