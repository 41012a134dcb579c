"""Paired statistics: against hand computation, against enumeration, and on populations whose difference is known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from m4rag.bench.paired import (
    Difference,
    against,
    detectable,
    holm,
    interval_of_difference,
    mcnemar,
    paired_differences,
    sign_flip,
)
from m4rag.bench.scoring import everything
from m4rag.bench.statistics import group_sums, partition, resampled_means


def difference(a: np.ndarray, b: np.ndarray, groups: np.ndarray, resamples: int = 500, seed: int = 0) -> Difference:
    found, _ = paired_differences(a, b, groups, {"all": everything(len(a))}, resamples=resamples, seed=seed)
    return found["all"]["all"]


def test_mcnemar_by_hand() -> None:
    # Ten pairs differ, two of them in favour of A: 2 * (1 + 10 + 45) / 2^10.
    assert mcnemar(2, 8) == pytest.approx(112 / 1024)
    assert mcnemar(8, 2) == mcnemar(2, 8)
    assert mcnemar(0, 6) == pytest.approx(2 / 64)
    assert mcnemar(3, 3) == mcnemar(0, 0) == 1.0


@given(st.integers(0, 3000), st.integers(0, 3000))
@settings(max_examples=60, deadline=None)
def test_mcnemar_agrees_with_scipy(a_only: int, b_only: int) -> None:
    if a_only + b_only:
        assert mcnemar(a_only, b_only) == pytest.approx(stats.binomtest(a_only, a_only + b_only).pvalue, rel=1e-9)


@given(st.lists(st.sampled_from((-1, 0, 1)), min_size=1, max_size=400))
@settings(max_examples=60, deadline=None)
def test_with_one_pair_an_image_the_test_over_images_is_mcnemar(net: list[int]) -> None:
    expected = mcnemar(net.count(-1), net.count(1))
    assert sign_flip(np.array(net, dtype=float)) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_the_test_over_images_agrees_with_trying_every_swap(net: list[int]) -> None:
    totals = [abs(sum(sign * gain for sign, gain in zip(signs, net, strict=True))) for signs in _signs(len(net))]
    expected = sum(total >= abs(sum(net)) for total in totals) / len(totals)
    assert sign_flip(np.array(net, dtype=float)) == pytest.approx(expected)


def _signs(n: int) -> list[tuple[int, ...]]:
    return list(product((-1, 1), repeat=n))


def test_six_questions_about_two_images_are_two_observations() -> None:
    # All six favour B. As six independent questions that is 2 / 2^6; as two images it is 2 / 2^2.
    assert mcnemar(0, 6) == pytest.approx(0.03125)
    assert sign_flip(np.array([3.0, 3.0])) == pytest.approx(0.5)


def test_m4rag_fault_28_where_nothing_differs_the_test_over_images_keeps_its_level() -> None:
    random = np.random.default_rng(1)
    by_images, by_questions = [], []
    for _ in range(400):
        # 40 images; on each, one side or the other gains by chance on most of its ten questions.
        net = random.choice((-1, 1), 40) * random.binomial(10, 0.6, 40)
        a_only, b_only = int(-net[net < 0].sum()), int(net[net > 0].sum())
        by_images.append(sign_flip(net.astype(float)) < 0.05)
        by_questions.append(mcnemar(a_only, b_only) < 0.05)
    assert 0.02 <= np.mean(by_images) <= 0.08
    assert np.mean(by_questions) > 0.3


def test_holm_on_a_known_example() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_holm_lies_between_no_adjustment_and_bonferronis_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    for one, after in zip(p, adjusted, strict=True):
        assert one <= after <= min(1.0, len(p) * one)
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


def test_detectable_by_hand() -> None:
    # 100 images with a question each, 30 gained and 20 lost: variance (50 - 10^2 / 100) / 100^2 * 100 / 99.
    net = np.array([1.0] * 30 + [-1.0] * 20 + [0.0] * 50)
    error = (49 / 100**2 * 100 / 99) ** 0.5
    assert detectable(net, np.ones(100)) == pytest.approx(100 * error * (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)))
    assert detectable(np.zeros(100), np.ones(100)) is None
    assert detectable(np.array([1.0]), np.array([2.0])) is None
    # An image that the cell does not ask about is no observation.
    assert detectable(np.append(net, 0.0), np.append(np.ones(100), 0.0)) == detectable(net, np.ones(100))


def test_a_difference_of_the_detectable_size_is_found_four_times_of_five() -> None:
    random = np.random.default_rng(2)
    images, each, differing = 150, 3, 0.3
    null = random.choice((-1, 0, 1), (images, each), p=(differing / 2, 1 - differing, differing / 2)).sum(axis=1)
    size = detectable(null.astype(float), np.full(images, each))
    assert size is not None
    shift = size / 100 / 2
    chances = (differing / 2 - shift, 1 - differing, differing / 2 + shift)
    nets = random.choice((-1, 0, 1), (300, images, each), p=chances).sum(axis=2)
    assert 0.7 <= np.mean([sign_flip(net.astype(float)) < 0.05 for net in nets]) <= 0.9


def test_counts_and_values_by_hand() -> None:
    a = np.array([True, True, False, False, True, False])
    b = np.array([True, False, True, True, True, False])
    found = difference(a, b, np.array([0, 0, 1, 1, 2, 2]))
    assert (found.a, found.b, found.value) == pytest.approx((50, 400 / 6, 100 / 6))
    assert (found.a_only, found.b_only, found.n, found.groups) == (1, 2, 6, 3)
    assert found.mcnemar == 1.0
    # Gains of the images: -1, +2, 0. Two of the four swaps give a total as far from 0 as 1 or further: all of them.
    assert found.p == 1.0


rows = st.integers(2, 60).flatmap(
    lambda n: st.tuples(*(st.lists(st.booleans(), min_size=n, max_size=n) for _ in range(2)), st.integers(1, n))
)


@given(rows)
@settings(max_examples=60, deadline=None)
def test_turning_the_sides_turns_the_sign(drawn: tuple[list[bool], list[bool], int]) -> None:
    a, b, images = np.array(drawn[0]), np.array(drawn[1]), drawn[2]
    groups = np.arange(len(a)) % images
    there, back = difference(a, b, groups, 100), difference(b, a, groups, 100)
    assert there.value == pytest.approx(-back.value)
    assert (there.a_only, there.b_only) == (back.b_only, back.a_only)
    assert (there.p, there.mcnemar, there.detectable) == (back.p, back.mcnemar, back.detectable)
    assert -100 <= there.low <= there.value <= there.high <= 100


def test_equal_answers_differ_by_nothing_and_the_interval_says_how_little_that_tells() -> None:
    same = np.random.default_rng(3).random(20) < 0.5
    found = difference(same, same, np.arange(20))
    assert (found.value, found.p, found.mcnemar, found.detectable) == (0, 1, 1, None)
    assert found.low < -4
    assert found.high > 4
    assert difference(same[:1], same[:1], np.array([0])).low == -100


def test_pairs_are_resampled_together() -> None:
    # B has right what A has, and ten questions more: between the two accuracies, each 10 points wide, lies a sure gain.
    a = np.arange(400) % 2 == 0
    b = a.copy()
    b[1:80:2] = True
    found = difference(a, b, np.arange(400))
    assert found.value == 10
    assert 6 < found.low < found.high < 14
    assert found.clear


def test_rows_are_adjusted_and_the_whole_is_not() -> None:
    random = np.random.default_rng(4)
    a, b = random.random(300) < 0.5, random.random(300) < 0.6
    cells = partition([str(n % 3) for n in range(300)])
    found, draws = paired_differences(
        a, b, np.arange(300), {"all": everything(300), "rows": cells}, resamples=200, seed=1
    )
    assert found["all"]["all"].p_holm is None
    assert [cell.p_holm for cell in found["rows"].values()] == holm([cell.p for cell in found["rows"].values()])
    assert draws["rows"].shape == (200, 3)


@pytest.mark.parametrize(("questions", "least", "most", "plain_most"), [(20, 95, 100, 90), (200, 93.5, 97, 97)])
def test_intervals_of_a_difference_hold_the_truth(questions: int, least: float, most: float, plain_most: float) -> None:
    """With 20 questions some three pairs differ: then the interval is cautious, and plain percentiles fail badly."""
    random = np.random.default_rng(questions)
    truth, alike, held, plain = 0.05, 0.75, 0, 0
    trials, languages = 40, 25
    cells = partition([str(n) for n in range(languages)] * questions)
    groups = np.repeat(np.arange(questions), languages)
    for trial in range(trials):
        a = random.random(questions * languages) < 0.6
        fresh = random.random(questions * languages) < 0.6 + truth / (1 - alike)
        b = np.where(random.random(questions * languages) < alike, a, fresh)
        sums = group_sums(b.astype(float) - a, groups, cells)
        draws = resampled_means({"x": sums}, seed=trial)["x"]
        for drawn in draws.T:
            low, high = interval_of_difference(drawn, questions, questions)
            held += low <= truth <= high
            low, high = np.percentile(drawn, [2.5, 97.5])
            plain += low <= truth <= high
    assert least <= 100 * held / (trials * languages) <= most
    assert 100 * plain / (trials * languages) < plain_most


def test_several_sides_against_one_baseline_are_a_family() -> None:
    random = np.random.default_rng(3)
    a, groups = random.random(300) < 0.5, np.arange(300) // 3
    sides = {"better": a | (random.random(300) < 0.1), "same": a, "other": random.random(300) < 0.5}
    found = against(a, sides, groups, resamples=200)
    assert [cell.p_holm for cell in found.values()] == pytest.approx(holm([cell.p for cell in found.values()]))
    alone = difference(a, sides["better"], groups, resamples=200)
    assert found["better"].model_copy(update={"p_holm": None}) == alone
    assert against(a, {"better": sides["better"]}, groups, resamples=200)["better"] == alone


@pytest.mark.parametrize(
    ("p", "p_holm", "low", "high", "clear"),
    [
        (0.049, None, 0.1, 9.0, True),
        (0.05, None, 0.1, 9.0, False),
        (0.01, 0.06, 0.1, 9.0, False),
        (0.01, 0.02, 0.0, 9.0, False),
        (0.01, 0.02, -9.0, -0.1, True),
        (0.01, 0.02, -0.1, 9.0, False),
    ],
)
def test_a_difference_is_clear_where_test_and_interval_say_so(
    p: float, p_holm: float | None, low: float, high: float, clear: bool
) -> None:
    some = difference(np.ones(3, dtype=bool), np.zeros(3, dtype=bool), np.arange(3))
    given = some.model_copy(update={"p": p, "p_holm": p_holm, "low": low, "high": high})
    assert given.clear is clear
