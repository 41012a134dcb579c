"""Whether a model leans to a position: by hand, under no preference, and under a small one."""

from __future__ import annotations

from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from m4rag.bench.positions import marginal_test, positions
from m4rag.bench.scoring import score
from m4rag.cli.results import print_results
from m4rag.schema import Answer, Question, Status


def test_with_two_options_it_is_mcnemars_chi_square() -> None:
    # Ten choices differ from the right position, eight of them by taking the second: (8 - 2)^2 / 10.
    chosen = np.array([1] * 8 + [0] * 2 + [0, 1] * 20)
    right = np.array([0] * 8 + [1] * 2 + [0, 1] * 20)
    assert marginal_test(chosen, right, np.arange(50), 2) == pytest.approx(stats.chi2.sf(3.6, 1))


def test_stuarts_test_by_hand() -> None:
    # Pairs (right, chosen) of three positions; the differences of the shares are 4, -1 and -3.
    table = np.array([[20, 5, 1], [4, 30, 6], [6, 8, 10]])
    right, chosen = (np.repeat(axis.ravel(), table.ravel()) for axis in np.indices(table.shape))
    gap = table.sum(axis=0) - table.sum(axis=1)
    covariance = np.diag(table.sum(axis=0) + table.sum(axis=1)) - table - table.T
    statistic = gap[:2] @ np.linalg.inv(covariance[:2, :2]) @ gap[:2]
    expected = stats.chi2.sf(statistic, 2)
    assert marginal_test(chosen, right, np.arange(table.sum()), 3) == pytest.approx(expected)


def test_questions_that_share_an_image_are_one_observation() -> None:
    random = np.random.default_rng(1)
    images, alarms = np.arange(600) // 10, []
    for _ in range(300):
        # All questions about an image are answered with the same position, drawn anew for each image.
        right, chosen = random.integers(0, 4, 600), random.integers(0, 4, 60)[images]
        alarms.append([marginal_test(chosen, right, groups, 4) < 0.05 for groups in (images, np.arange(600))])
    clustered, independent = np.mean(alarms, axis=0)
    assert clustered <= 0.08
    assert independent > 0.5


def test_a_model_that_is_often_wrong_but_without_preference_is_not_accused() -> None:
    random, alarms, shares = np.random.default_rng(2), 0, (0.4, 0.3, 0.2, 0.1)
    for _ in range(300):
        right, other = random.choice(4, (2, 300), p=shares)
        chosen = np.where(random.random(300) < 0.4, right, other)
        alarms += marginal_test(chosen, right, np.arange(300), 4) < 0.05
    assert 0.01 <= alarms / 300 <= 0.1


def test_m4rag_fault_22_a_lean_to_a_position_is_found_and_named() -> None:
    random = np.random.default_rng(3)
    right = random.integers(0, 4, 1000)
    chosen = np.where(random.random(1000) < 0.1, 2, right)
    found = positions(chosen, right, np.arange(1000), 5)
    assert found is not None
    assert found.biased
    assert (found.favourite, found.n, len(found.chosen)) == (2, 1000, 5)
    assert sum(found.chosen) == pytest.approx(100)
    assert found.right[4] == 0
    assert found.p < 1e-6


def test_nothing_to_compare() -> None:
    nothing = np.array([], dtype=int)
    assert positions(nothing, nothing, nothing, 4) is None
    assert marginal_test(np.array([1, 2]), np.array([1, 2]), np.arange(2), 4) == 1.0


def test_scores_name_the_setting_that_leans() -> None:
    questions = [
        Question(
            question_id=str(number),
            dataset="test",
            language="en",
            question="?",
            options=tuple("abcd"),
            answer_index=number % 4,
            group=str(number),
        )
        for number in range(200)
    ]
    answers = [
        Answer(question_id=asked.question_id, setting=setting, model="m", choice=choice, status=Status.OK, raw="")
        for asked in questions
        for setting, choice in (("no_rag", asked.answer_index), ("oracle", 3 if int(asked.question_id) % 5 else 0))
    ]
    # An answer that could not be read says nothing about positions.
    answers[0] = answers[0].model_copy(update={"status": Status.UNPARSABLE, "choice": None})
    scores = score(questions, answers, resamples=20)
    fair, leaning = (setting.positions for setting in scores.settings)
    assert fair is not None
    assert leaning is not None
    assert (fair.n, leaning.n, fair.biased, leaning.favourite) == (199, 200, False, 3)
    shown = StringIO()
    print_results(scores, "all", Console(file=shown, width=120))
    assert "oracle leans to option 4: chosen in 80.0 % of the answers, right in 25.0 % (p < 0.001)" in shown.getvalue()
    assert "no_rag leans" not in shown.getvalue()
