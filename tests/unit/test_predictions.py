"""Predictions as free text: what the published rules read, what ours read, and files that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4rag.bench.predictions import PARSERS, PredictionScores, published, score_predictions, strict
from m4rag.bench.scoring import score
from m4rag.datasets import load_questions
from m4rag.errors import BadData, UsageError
from m4rag.languages import WORLDCUISINES_VARIETIES
from m4rag.schema import Answer, Status

OPTIONS = ("Phở", "Crème brûlée", "Bún chả", "7 Up", "Bún chả cá")


@pytest.mark.parametrize(
    ("text", "by_published", "by_strict"),
    [
        # An integer.
        ("3", 3, 3),
        (" 3\n", 3, 3),
        ("+3", 3, 3),
        ("-3", -3, -3),
        ("0", 0, 0),
        ("17", 17, 17),
        ("৩", 3, 3),  # Bengali, as Pangea answers
        ("３", 3, 3),
        ("9" * 5000, -1, -1),
        # An integer with a dot at the start.
        ("3. Bún chả", 3, 3),
        ("3.", 3, 3),
        ("3.0", 3, 3),
        ("৩. Bún chả", 3, 3),
        ("3) bún chả!", 3, 3),
        ("(3)", 3, 3),
        ("3: BÚN CHẢ", 3, 3),
        ("3. Phở", 3, None),
        ("3. Bánh mì", 3, None),
        # The first run of digits anywhere: published rules take whatever digit comes first.
        ("The answer is 3", 3, None),
        ("It is from 1950, so option 2", 1950, None),
        ("根据图片,选项2", 2, None),
        # JSON, as a chat model answers; thinking is no answer.
        ('{"explanation": "not 1", "answer": 3}', 1, 3),
        ('<think>{"answer": 1}</think>```json\n{"answer": "2. Crème brûlée"}\n```', 1, 2),
        ("<think>1 or 2?</think>3", 1, 3),
        ("<think>1 or 2?", 1, None),
        ('{"answer": 17}', 17, 17),
        ('{"answer": null}', None, None),
        # An option by its text scores only with ours.
        ("Phở", None, 1),
        ("phở.", None, 1),
        ("«CRÈME BRÛLÉE»", None, 2),
        ("Cre\u0300me bru\u0302le\u0301e", None, 2),
        ("bún   chả", None, 3),
        ("7 Up", 7, 4),
        # Nothing to read.
        ("", None, None),
        ("...", None, None),
        ("B", None, None),
        ("None of these", None, None),
        ("nan", None, None),
    ],
)
def test_what_each_parser_reads(text: str, by_published: int | None, by_strict: int | None) -> None:
    assert (published(text, OPTIONS), strict(text, OPTIONS)) == (by_published, by_strict)


def test_a_text_that_two_options_share_names_neither() -> None:
    assert strict("Malaysia", ("Malaysia", "Brunei", "malaysia")) is None
    assert strict("1", ("Malaysia", "Brunei", "malaysia")) == 1


def test_a_number_is_a_position_before_it_is_a_text() -> None:
    assert strict("2", ("3", "1", "2")) == 2
    assert strict("1998", ("1997", "1998")) == 2


@pytest.mark.parametrize("parser", sorted(PARSERS))
@pytest.mark.parametrize("text", ["", " ", "\n", "{}", '""', '{"answer": ""}'])
def test_m4rag_fault_36_an_answer_that_says_nothing_chooses_nothing(parser: str, text: str) -> None:
    for options in (OPTIONS, ("", "a"), ("a", " ")):
        assert PARSERS[parser](text, options) is None


@given(st.text(max_size=40), st.lists(st.text(max_size=10), min_size=2, max_size=5))
def test_parsers_take_any_text(text: str, options: list[str]) -> None:
    for parser in PARSERS.values():
        assert isinstance(parser(text, options), int | None)


@given(
    st.lists(
        st.text(st.characters(categories=["L"]), min_size=1, max_size=9), min_size=2, max_size=5, unique_by=str.casefold
    )
)
def test_an_option_repeated_word_for_word_is_that_option(options: list[str]) -> None:
    for place, option in enumerate(options, start=1):
        assert strict(f"{place}. {option}", options) == place
        assert strict(option, options) in (place, None)


def items(folder: Path, rows: Sequence[tuple[str, str, str, int]]) -> Path:
    """Questions with (qa_id, lang, prompt_type, gold counted from 1); five questions share two images."""
    table = pa.Table.from_pylist(
        [
            {
                "qa_id": qa_id,
                "lang": lang,
                "food_id": 1,
                "prompt_id": "1",
                "prompt_type": prompt_type,
                "question": "?",
                "options": list(OPTIONS),
                "answer_index": gold,
                "answer": OPTIONS[gold - 1],
                "image_url": f"https://example.org/{int(qa_id) % 2}.jpg",
            }
            for qa_id, lang, prompt_type, gold in rows
        ]
    )
    pq.write_table(table, folder / "items.parquet")
    return folder / "items.parquet"


ROWS = (("1", "en", "1", 1), ("1", "nan", "1", 1), ("2", "en", "2", 2), ("2", "nan", "2", 2), ("3", "yue", "2", 3))


def scored(folder: Path, rows: Sequence[dict[str, Any]] | pa.Table, parser: str = "published") -> PredictionScores:
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows))
    pq.write_table(table, folder / "predictions.parquet")
    return score_predictions("worldcuisines", items(folder, ROWS), folder / "predictions.parquet", parser, resamples=50)


def prediction(qa_id: str, lang: str, text: str | None) -> dict[str, Any]:
    return {"qa_id": qa_id, "lang": lang, "prediction": text}


GOOD = (prediction("1", "en", "1"), prediction("1", "nan", "9"), prediction("2", "en", "Crème brûlée"))


def test_what_is_missing_or_unreadable_counts_as_wrong_and_is_reported(tmp_path: Path) -> None:
    scores = scored(tmp_path, [*GOOD, prediction("3", "yue", None)])
    assert scores.n == 5
    assert scores.accuracy.value == pytest.approx(20)
    assert scores.invalid == {"unparsable": 1, "out_of_range": 1, "refused": 0, "truncated": 0, "error": 2}
    assert {kind: {name: cell.value for name, cell in cells.items()} for kind, cells in scores.by_variety.items()} == {
        "1": {"en": 100, "nan": 0},
        "2": {"en": 0, "nan": 0, "yue": 0},
    }
    assert scored(tmp_path, GOOD, "strict").accuracy.value == pytest.approx(40)


def test_the_json_has_two_decimals_and_intervals_apart(tmp_path: Path) -> None:
    payload = scored(tmp_path, GOOD, "strict").payload()
    assert (payload["n"], payload["accuracy"], payload["parser"]) == (5, 40.0, "strict")
    assert payload["by_prompt_type"]["2"] == {"macro": 33.33, "by_variety": {"en": 100.0, "nan": 0.0, "yue": 0.0}}
    low, high = payload["intervals"]["by_prompt_type"]["2"]["by_variety"]["en"]
    assert low < high == 100.0
    assert payload["baselines"] == {"random": 20.0, "majority": 40.0, "text_only": None}
    assert payload["accuracy_without_corrupt"] == 50.0


def test_a_file_of_predictions_scores_as_the_same_answers_of_a_run(tmp_path: Path) -> None:
    from_file = scored(tmp_path, [*GOOD, prediction("2", "nan", "2"), prediction("3", "yue", "1")])
    answers = [
        Answer(question_id=name, setting="s", model="m", status=Status.OK, choice=choice, raw="")
        for name, choice in (("3-yue", 0), ("2-nan", 1), ("1-en", 0))
    ]
    run = score(load_questions("worldcuisines", tmp_path / "items.parquet")[::-1], answers, resamples=50)
    assert run.settings[0].accuracy == from_file.accuracy
    assert run.settings[0].macro == from_file.macro
    assert run.baselines == from_file.baselines


def test_predictions_may_name_question_ids_and_come_as_json_lines_or_csv(tmp_path: Path) -> None:
    path = items(tmp_path, ROWS)
    (tmp_path / "p.jsonl").write_text(
        '{"question_id": "1-nan", "prediction": 1}\n{"question_id": "2-en", "prediction": 2}\n'
    )
    (tmp_path / "p.csv").write_text("qa_id,lang,prediction\n1,nan,1\n2,en,2.\n")
    for name in ("p.jsonl", "p.csv"):
        scores = score_predictions("worldcuisines", path, tmp_path / name, resamples=20)
        assert scores.accuracy.value == pytest.approx(40), name


def test_m4rag_fault_09_no_variety_is_missing_from_the_breakdown(tmp_path: Path) -> None:
    rows = [("1", code, "1", 1) for code in WORLDCUISINES_VARIETIES]
    pq.write_table(pa.Table.from_pylist([prediction("1", code, "1") for code in ("en", "tl")]), tmp_path / "p.parquet")
    scores = score_predictions("worldcuisines", items(tmp_path, rows), tmp_path / "p.parquet", resamples=20)
    assert set(scores.by_variety["1"]) == set(WORLDCUISINES_VARIETIES)
    assert (scores.by_variety["1"]["tl"].value, scores.by_variety["1"]["nan"].value) == (100, 0)


def test_m4rag_fault_09_groups_that_are_absent_from_the_file_are_no_error(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([prediction("1", "tl", "1")]), tmp_path / "p.parquet")
    scores = score_predictions("worldcuisines", items(tmp_path, [("1", "tl", "4", 1)]), tmp_path / "p.parquet")
    assert {kind: set(cells) for kind, cells in scores.by_variety.items()} == {"4": {"tl"}}


def test_numbers_with_gaps_are_numbers_with_gaps(tmp_path: Path) -> None:
    table = pa.table({"qa_id": ["1", "1", "2"], "lang": ["en", "nan", "en"], "prediction": [1.0, None, float("nan")]})
    scores = scored(tmp_path, table)
    assert (scores.accuracy.value, scores.invalid["error"]) == (pytest.approx(20), 4)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*GOOD, GOOD[2]], "1 questions answered more than once, first 2-en"),
        ([*GOOD, prediction("9", "en", "1")], "1 predictions belong to no question, first 9-en"),
        ([{"qa_id": "1", "lang": "en"}], "no column 'prediction', as a file of predictions has"),
        ([{"qa_id": "1", "prediction": "1"}], "no column 'lang', as a file of predictions has"),
        ([{"qa_id": "1", "lang": None, "prediction": "1"}], "keep_default_na=False"),
        ([{"qa_id": "1", "lang": float("nan"), "prediction": "1"}], "keep_default_na=False"),
        ([{"question_id": None, "prediction": "1"}], "1 rows without a question id"),
        ([{"question_id": "1-en", "prediction": True}], "the column holds bool, not text"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BadData, match=message):
        scored(tmp_path, rows)


def test_questions_that_can_not_be_scored_are_refused(tmp_path: Path) -> None:
    path = items(tmp_path, ROWS)
    table = pq.read_table(path)
    broken = table.set_column(table.schema.get_field_index("answer_index"), "answer_index", pa.array([1, 1, 2, 2, 6]))
    pq.write_table(broken, path)
    pq.write_table(pa.Table.from_pylist(list(GOOD)), tmp_path / "p.parquet")
    with pytest.raises(BadData, match=r"row 4 \(3-yue\): gold index out of range"):
        score_predictions("worldcuisines", path, tmp_path / "p.parquet")


def test_an_unknown_parser_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown parser 'lenient'"):
        scored(tmp_path, GOOD, "lenient")
