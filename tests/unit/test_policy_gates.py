"""Thresholds against brute force, folds that keep images whole, and fitted rules where the truth is known."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4rag.bench.runs import ModelIdentity, RunPlan
from m4rag.bench.statistics import Estimate
from m4rag.errors import BadData
from m4rag.policy.choice import fit_choice
from m4rag.policy.fit import weigh
from m4rag.policy.gates import FOLDS, Cut, Rows, best_threshold, cross_fitted, fit_gate, folds
from m4rag.policy.model import Evidence, Retrieve, Signal, better
from m4rag.policy.observations import Observations

VALUES = st.sampled_from((-1.5, 0.0, 0.1, 0.25, 0.5, 0.5000001, 3.0, math.nan)) | st.floats(-5, 5)
ROWS = st.lists(st.tuples(VALUES, st.sampled_from((-1.0, 0.0, 1.0))), min_size=1, max_size=40)


def gain_at(threshold: float, rows: list[tuple[float, float]]) -> float:
    return sum(gain for value, gain in rows if value >= threshold)


@given(ROWS)
def test_the_threshold_gains_what_the_best_of_all_thresholds_gains(rows: list[tuple[float, float]]) -> None:
    signal, gain = (np.array(column) for column in zip(*rows, strict=True))
    found = best_threshold(signal, gain)
    known = sorted({value for value, _ in rows if not math.isnan(value)})
    gains = {threshold: gain_at(threshold, rows) for threshold in [*known, math.inf]}
    best = max(gains.values())
    assert gain_at(found, rows) == best
    # Of equal thresholds the one that retrieves least.
    fewest = max(threshold for threshold, gained in gains.items() if gained == best)
    assert [value >= found for value, _ in rows] == [value >= fewest for value, _ in rows]


@given(ROWS, st.floats(0.5, 2), st.floats(-1, 1))
def test_the_choice_depends_on_the_order_of_the_signal_only(
    rows: list[tuple[float, float]], scale: float, shift: float
) -> None:
    signal, gain = (np.array(column) for column in zip(*rows, strict=True))
    signal = np.round(signal, 3)  # so that scaling keeps different values apart
    chosen = signal >= best_threshold(signal, gain)
    moved = signal * scale + shift
    assert (chosen == (moved >= best_threshold(moved, gain))).all()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(0, 5))
def test_folds_never_split_an_image_and_are_of_equal_size(groups: list[int], seed: int) -> None:
    fold = folds(np.array(groups), seed=seed)
    of_image: dict[int, set[int]] = {}
    for image, number in zip(groups, fold.tolist(), strict=True):
        of_image.setdefault(image, set()).add(number)
    assert all(len(numbers) == 1 for numbers in of_image.values())
    sizes = np.bincount([next(iter(numbers)) for numbers in of_image.values()], minlength=FOLDS)
    assert sizes.max() - sizes.min() <= 1


def test_no_gate_sees_an_image_that_it_decides_about() -> None:
    rows = Rows({"score": np.arange(60.0)}, np.ones(60), np.arange(60) // 3)
    seen = []

    def fit(train: Rows) -> Cut:
        seen.append(set(train.groups.tolist()))
        return Cut("score", -math.inf)

    assert cross_fitted(rows, fit).all()
    held_out = [set(range(20)) - train for train in seen]
    assert [len(images) for images in held_out] == [4] * FOLDS
    assert set().union(*held_out) == set(range(20))


def test_the_informative_signal_is_chosen_among_noise() -> None:
    population = draw(seed=3, helps=0.5, informative="judge")
    assert fit_gate(population.rows).signal == "judge"


def test_where_no_question_has_the_signal_nothing_is_retrieved() -> None:
    nothing = np.full(3, math.nan)
    assert best_threshold(nothing, np.ones(3)) == math.inf
    assert not Cut("score", -math.inf).retrieves(Rows({"score": nothing}, np.ones(3), np.arange(3))).any()


PLAN = RunPlan(
    dataset="synthetic",
    questions_digest="",
    n_questions=0,
    settings=("no_rag", "caption_query"),
    images="all",
    model=ModelIdentity(name="m", engine="", root=""),
    prompts_digest="",
    decoding={},
    k=5,
)


def draw(
    seed: int, *, helps: float, informative: Signal | None = None, images: int = 150, each: int = 4, hurts: float = 0.3
) -> Observations:
    """Questions of a known population: without retrieval half are right.

    Args:
        seed: Of the draw.
        helps: Share of the questions for which the passages are good; then 90 % are right with retrieval.
        informative: Signal that is high exactly for those; others are noise.
        images: Number of images.
        each: Questions of an image; they share whether the passages are good.
        hurts: Share that is right with retrieval where the passages are bad.
    """
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(images), each)
    good = (random.random(images) < helps)[groups]
    n = len(groups)
    signals: dict[Signal, np.ndarray] = {name: random.random(n) for name in ("score", "margin", "judge")}
    if informative is not None:
        signals[informative] = np.where(good, 0.6 + 0.4 * random.random(n), 0.6 * random.random(n))
    return Observations(
        plan=PLAN,
        setting="caption_query",
        before=random.random(n) < 0.5,
        after=random.random(n) < np.where(good, 0.9, hurts),
        groups=groups,
        joshi=["0", "5"] * (n // 2),
        signals=signals,
        unavailable={},
        judge="j",
        context_language="mixed",
        inputs={},
        notes=(),
    )


def decided(observed: Observations, resamples: int = 400) -> tuple[Retrieve, Evidence]:
    choice, evidence = weigh(observed, resamples=resamples)
    return choice.retrieve, evidence


def test_an_informative_signal_gates_and_its_estimate_is_that_of_the_best_gate() -> None:
    best = 100 * (0.5 * 0.9 + 0.5 * 0.5)  # retrieve for the good half: 70 %; never 50 %, always 60 %
    covered, biases = 0, []
    for seed in range(20):
        observed = draw(seed, helps=0.5, informative="score")
        retrieve, evidence = decided(observed)
        assert retrieve == "gated"
        assert fit_gate(observed.rows).threshold == pytest.approx(0.6, abs=0.1)
        covered += evidence.gated.low <= best <= evidence.gated.high
        biases.append(evidence.gated.value - best)
    assert covered >= 17
    assert abs(np.mean(biases)) < 1


def test_cross_fitting_takes_back_what_fitting_on_the_same_questions_flatters() -> None:
    flattered, honest = [], []
    for seed in range(60):
        rows = draw(seed, helps=1 / 3, images=60).rows  # retrieval gains 0.9/3 + 0.3*2/3 - 0.5 = 0, signals are noise
        flattered.append((rows.gain * fit_gate(rows).retrieves(rows)).mean())
        retrieve = cross_fitted(rows, fit_gate)
        honest.append((rows.gain * retrieve).mean())
    assert np.mean(flattered) > 0.025
    assert abs(np.mean(honest)) < 0.012


def simulated(seed: int, *, helps: float, informative: bool, hurts: float = 0.3, images: int = 120) -> Rows:
    """Rows of `draw` with the score as their only signal."""
    rows = draw(seed, helps=helps, hurts=hurts, images=images, informative="score" if informative else None).rows
    return Rows({"score": rows.signals["score"]}, rows.gain, rows.groups)


def fitted_gain(rows: Rows) -> float:
    """Points that fitting a policy gains over never retrieving, cross-fitted."""
    retrieve = cross_fitted(rows, partial(fit_choice, resamples=200))
    return 100 * float((rows.gain * retrieve).mean())


DRAWS = 200


@pytest.mark.parametrize(("helps", "hurts"), [(1.0, 0.3), (0.5, 0.7), (0.5, 0.3)], ids=["much", "everywhere", "some"])
def test_where_retrieval_helps_and_no_signal_says_when_fitting_costs_less_than_a_point(
    helps: float, hurts: float
) -> None:
    lost, forced = [], []
    for seed in range(DRAWS):
        rows = simulated(seed, helps=helps, hurts=hurts, informative=False)
        plain = max(0.0, 100 * float(rows.gain.mean()))
        lost.append(plain - fitted_gain(rows))
        forced.append(plain - 100 * float((rows.gain * cross_fitted(rows, fit_gate)).mean()))
    assert np.mean(lost) < 1
    assert np.mean(lost) < np.mean(forced), "a gate that always decides costs more"


def test_where_retrieval_hurts_fitting_costs_less_than_a_point() -> None:
    assert np.mean([-fitted_gain(simulated(seed, helps=0.0, informative=False)) for seed in range(DRAWS)]) < 1


def test_where_a_signal_tells_when_fitting_gains_nearly_what_the_true_threshold_gains() -> None:
    short, over = [], []
    for seed in range(DRAWS):
        rows = simulated(seed, helps=0.5, informative=True)
        best = 100 * float((rows.gain * (rows.signals["score"] >= 0.6)).mean())
        found = fitted_gain(rows)
        short.append(best - found)
        over.append(found - max(0.0, 100 * float(rows.gain.mean())))
    assert np.mean(short) < 1
    assert np.mean(over) > 8, "never 50 %, always 60 %, the true threshold 70 %"


@pytest.mark.parametrize("shared", [False, True], ids=["a signal a question", "a signal an image"])
@pytest.mark.parametrize(("helps", "hurts"), [(1 / 3, 0.3), (0.5, 0.3), (0.25, 0.25)], ids=["alike", "helps", "hurts"])
def test_noise_hardly_ever_makes_a_gate(helps: float, hurts: float, shared: bool) -> None:
    always, gated, worse = helps * 0.9 + (1 - helps) * hurts, 0, 0
    for seed in range(40):
        observed = draw(seed, helps=helps, hurts=hurts, images=60)
        if shared:
            noise = np.random.default_rng(1000 + seed)
            observed = replace(observed, signals={name: noise.random(60)[observed.groups] for name in observed.signals})
        retrieve, evidence = decided(observed, resamples=200)
        gated += retrieve == "gated"
        # The other plain rule is truly better, and by more than this run's noise.
        found = {"never": 0.5, "always": always}.get(retrieve, 0.5)
        worse += 100 * (max(0.5, always) - found) > evidence.always_gain.high - evidence.always_gain.low
    assert gated <= 2
    assert worse == 0


def test_retrieval_that_always_hurts_is_never_done() -> None:
    for seed in range(5):
        observed = draw(seed, helps=0.0, hurts=0.2)
        assert decided(observed)[0] == "never"


def test_retrieval_that_always_helps_is_always_done() -> None:
    for seed in range(5):
        assert decided(draw(seed, helps=1.0))[0] == "always"


def test_without_a_gate_the_more_accurate_rule_is_served_and_of_equal_ones_the_cheaper() -> None:
    def gain(value: float) -> Estimate:
        return Estimate(value=value, low=value - 9, high=value + 9, n=100, groups=100)

    assert [better(gain(value)) for value in (-0.1, 0.0, 0.1)] == ["never", "never", "always"]
    for seed in range(10):
        retrieve, evidence = decided(draw(seed, helps=0.37, images=60), resamples=200)
        assert evidence.always_gain.low <= 0 <= evidence.always_gain.high, "the questions do not tell them apart"
        assert retrieve == ("always" if evidence.always.value > evidence.never.value else "never")


def test_a_gate_is_chosen_only_if_it_beats_the_better_plain_rule_beyond_noise() -> None:
    seen = set()
    for seed in range(30):
        retrieve, evidence = decided(draw(seed, helps=0.5, images=30, informative="score"), resamples=200)
        plain = max(evidence.never.value, evidence.always.value)
        assert evidence.alone_gain.value == pytest.approx(evidence.gate_alone.value - plain)
        assert (retrieve == "gated") == (evidence.alone_gain.low > 0)
        seen.add(retrieve)
    assert seen >= {"gated", "always"}


def test_accuracies_and_differences_agree_and_nothing_beats_the_oracle() -> None:
    observed = draw(1, helps=0.5, informative="margin")
    choice, evidence = weigh(observed)
    assert evidence.never.value == pytest.approx(100 * observed.before.mean())
    assert evidence.always_gain.value == pytest.approx(evidence.always.value - evidence.never.value)
    plain = max(evidence.never.value, evidence.always.value)
    assert evidence.gated_over_never.value == pytest.approx(evidence.gated.value - evidence.never.value)
    assert evidence.gated_over_always.value == pytest.approx(evidence.gated.value - evidence.always.value)
    assert evidence.oracle.value >= max(evidence.gated.value, evidence.gate_alone.value, plain)
    assert evidence.alone_gain.value == pytest.approx(evidence.gate_alone.value - plain)
    assert set(evidence.by_signal) == {"score", "margin", "judge"}
    assert sum(found.never.n for found in evidence.by_class.values()) == evidence.never.n
    again, same = weigh(observed)
    assert (again.retrieve, again.cut, same) == (choice.retrieve, choice.cut, evidence)


def test_a_run_of_few_images_teaches_nothing() -> None:
    with pytest.raises(BadData, match=r"9 images are too few.*at least 10"):
        weigh(draw(0, helps=0.5, images=9))
