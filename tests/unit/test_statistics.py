"""Intervals: against known answers, against scipy, and by how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from m4rag.bench.statistics import (
    Partition,
    Sums,
    estimate,
    gap,
    group_sums,
    macro,
    partition,
    resampled_means,
    tail_share,
    wilson,
    wilson_estimate,
)


def sums_of(values: np.ndarray, groups: np.ndarray, cells: np.ndarray | None = None) -> Sums:
    return group_sums(values, groups, partition([str(c) for c in (np.zeros_like(groups) if cells is None else cells)]))


rows = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.booleans(), min_size=n, max_size=n),
        st.lists(st.integers(0, 9), min_size=n, max_size=n),
        st.lists(st.sampled_from("abc"), min_size=n, max_size=n),
    )
)


@given(rows)
@settings(max_examples=60)
def test_cells_hold_their_means_and_intervals_hold_the_means(drawn: tuple[list[bool], list[int], list[str]]) -> None:
    values, groups, names = np.array(drawn[0], dtype=float), np.unique(drawn[1], return_inverse=True)[1], drawn[2]
    sums = group_sums(values, groups, partition(names))
    estimates = sums.estimates(resampled_means({"x": sums}, resamples=200)["x"])
    assert set(estimates) == set(names)
    for name, found in estimates.items():
        mine = [value for value, other in zip(values, names, strict=True) if other == name]
        assert found.value == pytest.approx(100 * sum(mine) / len(mine))
        assert found.n == len(mine)
        assert found.groups == len({group for group, other in zip(groups, names, strict=True) if other == name})
        assert 0 <= found.low <= found.high <= 100


@given(st.integers(0, 400), st.integers(1, 400))
@settings(max_examples=60)
def test_wilson_agrees_with_scipy(count: int, more: int) -> None:
    n = count + more
    expected = stats.binomtest(count, n).proportion_ci(method="wilson")
    assert wilson(count / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0.0, 0) == (0.0, 1.0)


@given(st.integers(1, 50), st.integers(1, 400), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_memory_chunks_do_not_change_the_draws(groups: int, chunk: int, seed: int) -> None:
    of = np.arange(groups * 3) % groups
    sums = sums_of((np.arange(groups * 3) % 7 < 3).astype(float), of)
    whole = resampled_means({"x": sums}, resamples=50, seed=seed)["x"]
    cut = resampled_means({"x": sums}, resamples=50, seed=seed, chunk_draws=chunk)["x"]
    assert np.array_equal(whole, cut)


def test_breakdowns_share_their_draws() -> None:
    random = np.random.default_rng(1)
    values, groups = random.integers(0, 2, 400).astype(float), np.arange(400) % 40
    halves = partition([str(n) for n in (np.arange(400) // 40) % 2])
    sums = {"all": sums_of(values, groups), "halves": group_sums(values, groups, halves)}
    draws = resampled_means(sums, resamples=300, seed=3)
    # Each image has as many rows in one half as in the other, so in every resample the whole is the mean of the halves.
    assert np.allclose(draws["halves"].mean(axis=1), draws["all"][:, 0])
    assert np.allclose(macro(draws["halves"]), draws["all"][:, 0])


def test_questions_about_one_image_count_as_one_when_they_agree() -> None:
    random = np.random.default_rng(2)
    per_image = random.integers(0, 2, 100).astype(float)
    once = sums_of(per_image, np.arange(100))
    often = sums_of(np.repeat(per_image, 30), np.repeat(np.arange(100), 30))
    (single,) = once.estimates(resampled_means({"x": once})["x"]).values()
    (repeated,) = often.estimates(resampled_means({"x": often})["x"]).values()
    assert (repeated.low, repeated.high) == (single.low, single.high)
    assert (repeated.n, repeated.groups) == (3000, 100)
    # A bootstrap over rows would claim an interval sqrt(30) times narrower.
    assert repeated.high - repeated.low > 15


@pytest.mark.parametrize(("value", "groups"), [(1.0, 8), (0.0, 8), (0.5, 1)])
def test_an_interval_is_never_empty_for_want_of_variation(value: float, groups: int) -> None:
    found = estimate(value, np.full(100, value), n=20, groups=groups)
    assert (found.low / 100, found.high / 100) == pytest.approx(wilson(value, groups))
    assert found.high - found.low > 30


def test_a_cell_that_a_resample_misses_is_left_out_of_that_resample_only() -> None:
    draws = np.array([[1.0, np.nan], [0.0, 0.5], [np.nan, np.nan]])
    assert np.array_equal(macro(draws), [1.0, 0.25, np.nan], equal_nan=True)
    found = estimate(0.5, np.array([0.0, np.nan, 1.0]), n=2, groups=10**6)
    assert (found.low, found.high) == pytest.approx((2.5, 97.5), abs=1e-3)


@pytest.mark.parametrize("groups", [2, 5, 20, 54, 732])
def test_percentiles_lie_where_the_t_interval_of_normal_data_ends(groups: int) -> None:
    # For normal data the bootstrap's draws are normal with the biased variance, and the t interval is exact.
    values = np.random.default_rng(groups).normal(size=groups)
    reach = stats.t.ppf(0.975, groups - 1) * values.std(ddof=1) / groups**0.5
    assert stats.norm.ppf(tail_share(groups)) * values.std(ddof=0) / groups**0.5 == pytest.approx(-reach)


def test_few_images_leave_less_out_and_many_leave_the_plain_percentiles() -> None:
    assert tail_share(20) == pytest.approx(0.0159, abs=1e-4)
    assert tail_share(10**6) == pytest.approx(0.025, abs=1e-5)


def test_a_sparse_breakdown_gives_the_same_numbers_as_a_dense_one(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    groups = np.concatenate([np.arange(50), random.integers(0, 50, 150)])
    sums = sums_of(random.integers(-1, 2, 200).astype(float), groups, random.integers(0, 40, 200))
    assert np.count_nonzero(sums.rows) < 0.1 * sums.rows.size
    sparse = resampled_means({"x": sums}, resamples=100)["x"]
    monkeypatch.setattr("m4rag.bench.statistics.SPARSE", 0.0)
    assert np.array_equal(sparse, resampled_means({"x": sums}, resamples=100)["x"], equal_nan=True)


def test_a_cell_without_rows_has_no_estimate() -> None:
    cells = Partition(("a", "b"), np.zeros(4, dtype=np.int64))
    sums = group_sums(np.ones(4), np.arange(4), cells)
    assert set(sums.estimates(resampled_means({"x": sums}, resamples=10)["x"])) == {"a"}


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(5)
    images, questions, truth, trials = 80, 10, 0.6, 300
    held = 0
    for trial in range(trials):
        # Images differ in difficulty, so questions about one image agree more than chance.
        ease = random.beta(truth * 4, (1 - truth) * 4, images)
        values = (random.random((images, questions)) < ease[:, None]).astype(float)
        sums = sums_of(values.ravel(), np.repeat(np.arange(images), questions))
        (found,) = sums.estimates(resampled_means({"x": sums}, resamples=400, seed=trial)["x"]).values()
        held += found.low <= 100 * truth <= found.high
    # 300 trials of a 95 % event: 279 to 291 in the middle, below 270 or all 300 would be a fault.
    assert 270 <= held <= 298


@pytest.mark.parametrize(("questions", "each"), [(20, 1), (20, 2), (200, 1), (200, 2)])
def test_intervals_hold_the_truth_with_few_questions_as_with_many(questions: int, each: int) -> None:
    random = np.random.default_rng([questions, each])
    images, languages, trials = questions // each, 25, 40
    cells = Partition(tuple(map(str, range(languages))), np.tile(np.arange(languages), questions))
    groups = np.tile(np.repeat(np.arange(images), languages), each)
    held = plain = 0
    for trial in range(trials):
        truth = random.beta(4, 2, languages)
        ease = random.beta(4 * truth, 4 * (1 - truth), (images, languages))
        values = (random.random((each, images, languages)) < ease).astype(float)
        sums = group_sums(values.ravel(), groups, cells)
        draws = resampled_means({"x": sums}, seed=trial)["x"]
        for cell, found in enumerate(sums.estimates(draws).values()):
            held += found.low <= 100 * truth[cell] <= found.high
            low, high = np.percentile(draws[:, cell], [2.5, 97.5])
            plain += low <= truth[cell] <= high
    # 1,000 intervals: the standard error of their coverage is 0.7 points.
    assert 93.3 <= 100 * held / (trials * languages) <= 97
    assert plain <= held
    assert questions > 20 or plain < 930


def test_the_gap_of_two_rates_is_newcombes() -> None:
    # Newcombe 1998, example (a): 56/70 - 48/80, method 10: 0.0524 to 0.3339.
    value, low, high = gap(wilson_estimate(48, 80, 80), wilson_estimate(56, 70, 70))
    assert (value, low, high) == pytest.approx((20, 5.24, 33.39), abs=0.01)
