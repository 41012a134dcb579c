"""Scores: nothing is dropped, nothing counts twice, and every breakdown adds up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m4rag.bench.scoring import DIMENSIONS, Scores, score
from m4rag.errors import BadData
from m4rag.schema import Answer, Question, Status

LANGUAGES = ("en", "am", "nan", "nan_spoken", "jv_krama", "ur", "zh_cn")


def question(number: int, language: str = "en", **changes: object) -> Question:
    fields = {
        "question_id": f"{number}-{language}",
        "dataset": "test",
        "language": language,
        "question": "?",
        "options": ("a", "b", "c", "d") if number % 5 == 0 else ("a", "b", "c", "d", "e"),
        "answer_index": number % 4,
        "category": ("food", "music")[number % 2],
        "prompt_type": str(number % 3),
        "group": f"image {number % 6}",
    }
    return Question.model_validate(fields | changes)


def answer(to: Question, right: bool = True, setting: str = "no_rag", **changes: object) -> Answer:
    choice = to.answer_index if right else (to.answer_index + 1) % len(to.options)
    fields = {
        "question_id": to.question_id,
        "setting": setting,
        "model": "m",
        "choice": choice,
        "status": Status.OK,
        "raw": "",
        "latency_ms": 100.0,
        "prompt_tokens": 10,
        "completion_tokens": 2,
    }
    return Answer.model_validate(fields | changes)


def questions() -> list[Question]:
    return [question(number, language) for number in range(24) for language in LANGUAGES]


def invalid(to: Question, status: Status) -> Answer:
    return answer(to, choice=None, status=status)


def test_a_missing_answer_is_an_error_and_counts_as_wrong() -> None:
    asked = questions()
    (scored,) = score(asked, [answer(q) for q in asked[:-3]], resamples=50).settings
    assert scored.accuracy.value == pytest.approx(100 * (len(asked) - 3) / len(asked))
    assert scored.invalid == {"unparsable": 0, "out_of_range": 0, "refused": 0, "truncated": 0, "error": 3}
    assert scored.invalid_rate.value == pytest.approx(100 * 3 / len(asked))
    assert scored.n == len(asked)


def test_m4rag_fault_34_what_is_not_ok_counts_as_wrong_and_is_reported_by_kind() -> None:
    asked = questions()
    statuses = [Status.UNPARSABLE, Status.OUT_OF_RANGE, Status.REFUSED, Status.TRUNCATED, Status.ERROR]
    answers = [invalid(q, status) for q, status in zip(asked, statuses, strict=False)]
    answers += [answer(q) for q in asked[len(statuses) :]]
    (scored,) = score(asked, answers, resamples=50).settings
    assert set(scored.invalid.values()) == {1}
    assert scored.accuracy.value == pytest.approx(100 * (len(asked) - 5) / len(asked))


def test_a_right_choice_without_status_ok_does_not_score() -> None:
    asked = [question(1)]
    (scored,) = score(asked, [answer(asked[0], status=Status.TRUNCATED)], resamples=20).settings
    assert scored.accuracy.value == 0


def refused(asked: Sequence[Question], answers: Sequence[Answer], message: str) -> None:
    with pytest.raises(BadData, match=message):
        score(asked, answers, resamples=20)


def test_what_does_not_fit_together_is_refused() -> None:
    asked = [question(1), question(2)]
    good = [answer(q) for q in asked]
    refused(asked, [*good, good[0]], "1-en: answered twice in no_rag")
    refused(asked, [*good, answer(question(9))], "9-en: an answer in no_rag belongs to no question")
    refused(asked, [good[0], answer(asked[1], model="other")], "answers of 2 models: m, other")
    refused(asked, [answer(asked[0], choice=5)], "choice 5, which is not an option")
    refused(asked, [answer(asked[0], choice=None)], "choice None, which is not an option")
    refused([asked[0], asked[0]], [], "1-en: a question id occurs twice")
    refused([asked[0], question(2, dataset="other")], [], "questions of 2 datasets")
    refused([], [], "questions of 0 datasets")


def test_the_same_answer_in_two_settings_is_no_double() -> None:
    asked = questions()
    answers = [answer(q, setting=setting) for setting in ("oracle", "no_rag") for q in asked]
    assert [scored.setting for scored in score(asked, answers, resamples=20).settings] == ["oracle", "no_rag"]


def test_m4rag_fault_28_breakdowns_are_by_resource_class_and_script() -> None:
    asked = questions()
    (scored,) = score(asked, [answer(q, right=q.language != "nan_spoken") for q in asked], resamples=20).settings
    assert set(scored.breakdowns) == set(DIMENSIONS)
    assert set(scored.breakdowns["variety"]) == set(LANGUAGES)
    assert set(scored.breakdowns["language"]) == {"en", "am", "nan", "jv", "ur", "zh"}
    assert set(scored.breakdowns["script"]) == {"Latn", "Ethi", "Hans", "Arab"}
    assert set(scored.breakdowns["joshi"]) == {"0", "1", "2", "3", "5"}
    assert scored.breakdowns["variety"]["nan"].value == 100
    assert scored.breakdowns["variety"]["nan_spoken"].value == 0
    assert scored.breakdowns["language"]["nan"].value == 50
    assert scored.macro.value == pytest.approx(100 * 6 / 7)


def test_two_names_of_one_variety_are_one_cell() -> None:
    asked = [question(1, "ja"), question(2, "jpn"), question(3, "Japanese")]
    (scored,) = score(asked, [answer(q) for q in asked], resamples=20).settings
    assert {name: cell.n for name, cell in scored.breakdowns["variety"].items()} == {"ja": 3}


def test_a_dimension_that_the_dataset_does_not_have_is_empty() -> None:
    asked = [question(number, prompt_type="", category="") for number in range(4)]
    (scored,) = score(asked, [answer(q) for q in asked], resamples=20).settings
    assert scored.breakdowns["prompt_type"] == {}
    half = [*asked, question(9, prompt_type="x")]
    (scored,) = score(half, [answer(q) for q in half], resamples=20).settings
    assert {name: cell.n for name, cell in scored.breakdowns["prompt_type"].items()} == {"unnamed": 4, "x": 1}


def test_m4rag_fault_35_macro_weighs_varieties_not_questions() -> None:
    asked = [question(number) for number in range(9)] + [question(100, "am")]
    (scored,) = score(asked, [answer(q, right=q.language == "en") for q in asked], resamples=20).settings
    assert (scored.accuracy.value, scored.macro.value) == (90, 50)


def test_baselines_are_guessing_and_the_most_frequent_position() -> None:
    asked = [question(0), question(4), question(5)]
    baselines = score(asked, [], resamples=20).baselines
    assert baselines["random"] is not None
    assert baselines["random"].value == pytest.approx(100 * (1 / 4 + 1 / 5 + 1 / 4) / 3)
    assert baselines["random"].low == baselines["random"].high == baselines["random"].value
    assert baselines["majority"] is not None
    assert baselines["majority"].value == pytest.approx(100 * 2 / 3)
    assert baselines["text_only"] is None


@pytest.mark.parametrize(
    ("setting", "images", "measured"),
    [("text_only", "all", True), ("no_rag", "none", True), ("no_rag", "all", False), ("oracle", "none", False)],
)
def test_text_only_is_what_saw_neither_image_nor_context(setting: str, images: str, measured: bool) -> None:
    asked = questions()
    scores = score(asked, [answer(q, setting=setting) for q in asked], images=images, resamples=20)
    assert (scores.baselines["text_only"] is not None) == measured
    assert scores.settings[0].images == ("none" if setting == "text_only" else images)


def test_costs_are_summed_and_times_are_of_what_was_timed() -> None:
    asked = questions()
    answers = [answer(q, latency_ms=float(n)) for n, q in enumerate(asked[:101])]
    answers += [
        answer(asked[101], choice=None, status=Status.ERROR, latency_ms=0.0, prompt_tokens=0, completion_tokens=0)
    ]
    (scored,) = score(asked, answers, resamples=20).settings
    assert (scored.prompt_tokens, scored.completion_tokens) == (1010, 202)
    assert scored.latency_p50_ms == pytest.approx(50.5)
    assert scored.latency_p95_ms == pytest.approx(95.05)


def test_scores_survive_json() -> None:
    asked = questions()
    scores = score(asked, [answer(q, right=n % 3 > 0) for n, q in enumerate(asked)], resamples=50)
    assert Scores.model_validate_json(scores.model_dump_json()) == scores


def test_the_seed_decides_the_intervals_and_the_order_of_answers_does_not() -> None:
    asked = questions()
    answers = [answer(q, right=n % 3 > 0) for n, q in enumerate(asked)]
    one = score(asked, answers, resamples=100, seed=1)
    assert one == score(asked, answers[::-1], resamples=100, seed=1)
    assert one.settings[0].accuracy != score(asked, answers, resamples=100, seed=2).settings[0].accuracy


@given(st.lists(st.sampled_from(["right", "wrong", "unparsable", "missing"]), min_size=168, max_size=168))
@settings(max_examples=25)
def test_every_question_is_counted_once_in_every_dimension(outcomes: list[str]) -> None:
    asked = questions()
    answers = []
    for q, outcome in zip(asked, outcomes, strict=True):
        if outcome == "unparsable":
            answers.append(invalid(q, Status.UNPARSABLE))
        elif outcome != "missing":
            answers.append(answer(q, right=outcome == "right"))
    if not answers:
        return
    (scored,) = score(asked, answers, resamples=20).settings
    assert scored.accuracy.value == pytest.approx(100 * outcomes.count("right") / len(outcomes))
    assert scored.invalid["unparsable"] == outcomes.count("unparsable")
    assert scored.invalid["error"] == outcomes.count("missing")
    assert scored.breakdowns.pop("pair") == {}  # these questions belong to none
    for cells in scored.breakdowns.values():
        assert sum(cell.n for cell in cells.values()) == len(asked)
        assert sum(cell.n * cell.value for cell in cells.values()) == pytest.approx(100 * outcomes.count("right"))


def test_what_context_gives_is_the_difference_from_no_context() -> None:
    asked = questions()
    answers = [
        *(answer(q, right=number % 2 == 0) for number, q in enumerate(asked)),
        *(answer(q, right=number % 2 == 0 or number % 8 == 1, setting="oracle") for number, q in enumerate(asked)),
        *(answer(q, right=number % 4 == 0, setting="irrelevant") for number, q in enumerate(asked)),
        *(answer(q, setting="text_only") for q in asked),
    ]
    scored = {row.setting: row for row in score(asked, answers, resamples=200).settings}
    assert scored["no_rag"].effect is scored["text_only"].effect is None
    for setting in ("oracle", "irrelevant"):
        effect = scored[setting].effect
        assert effect is not None
        assert effect.value == pytest.approx(scored[setting].accuracy.value - scored["no_rag"].accuracy.value)
        assert effect.p <= (effect.p_holm or 0)
    without = score(asked, [a for a in answers if a.setting != "no_rag"], resamples=20).settings
    assert all(row.effect is None for row in without)
