from __future__ import annotations

from pathlib import Path

import pytest
from run_folders import SETTINGS, write_run

from m4rag.bench.joined import answers_by_setting, gold_shown, read_folder_table, right, shown_passages
from m4rag.bench.runs import Passage, RunPlan
from m4rag.errors import BadData
from m4rag.manifests import Manifest
from m4rag.schema import Answer, Question
from m4rag.shards import read_folder, write_folder


@pytest.fixture
def plan(tmp_path: Path) -> RunPlan:
    return write_run(tmp_path)


def rewrite(folder: Path, answers: list[Answer]) -> None:
    write_folder(folder / "answers", Answer, answers, Manifest(kind="answers", command="test", inputs={"x": "y"}))


def test_answers_stand_beside_their_questions_whatever_order_they_were_stored_in(tmp_path: Path, plan: RunPlan) -> None:
    answers = list(read_folder(tmp_path / "answers", Answer))
    rewrite(tmp_path, list(reversed(answers)))
    questions = read_folder_table(tmp_path / "questions", Question)
    split = answers_by_setting(tmp_path, plan, questions)
    assert tuple(split) == SETTINGS
    for rows in split.values():
        assert rows["question_id"].to_pylist() == questions["question_id"].to_pylist()


def test_a_question_without_an_answer_in_one_setting_is_refused(tmp_path: Path, plan: RunPlan) -> None:
    rewrite(tmp_path, list(read_folder(tmp_path / "answers", Answer))[:-1])
    questions = read_folder_table(tmp_path / "questions", Question)
    with pytest.raises(BadData, match="179 answers to 180 questions in caption_query"):
        answers_by_setting(tmp_path, plan, questions)


def test_a_question_answered_twice_is_refused(tmp_path: Path, plan: RunPlan) -> None:
    answers = list(read_folder(tmp_path / "answers", Answer))
    rewrite(tmp_path, [*answers[:-1], answers[0]])
    questions = read_folder_table(tmp_path / "questions", Question)
    with pytest.raises(BadData, match="two answers in text_only"):
        answers_by_setting(tmp_path, plan, questions)


def test_m4rag_fault_08_an_answer_without_a_choice_is_wrong(tmp_path: Path, plan: RunPlan) -> None:
    questions = read_folder_table(tmp_path / "questions", Question)
    rows = answers_by_setting(tmp_path, plan, questions)["no_rag"]
    flags = right(rows, questions).to_pylist()
    unusable = [flag for flag, choice in zip(flags, rows["choice"].to_pylist(), strict=True) if choice is None]
    assert unusable
    assert not any(unusable)


def test_m4rag_fault_08_gold_is_a_document_in_any_language(tmp_path: Path, plan: RunPlan) -> None:
    questions = read_folder_table(tmp_path / "questions", Question)
    answers = answers_by_setting(tmp_path, plan, questions)
    passages = shown_passages(tmp_path, answers.values())
    names = {passage.chunk_id: passage.document_id for passage in read_folder(tmp_path / "passages", Passage)}
    flags = gold_shown(answers["caption_query"], questions, passages)
    assert flags is not None
    for flag, question_id, shown in zip(
        flags, questions["question_id"].to_pylist(), answers["caption_query"]["retrieved"].to_pylist(), strict=True
    ):
        concept = question_id.partition("-")[0]
        assert flag == any(names[hit["chunk_id"]].startswith(f"sample:{concept}:") for hit in shown)
    assert gold_shown(answers["oracle"], questions, passages) == [True] * 180
    assert gold_shown(answers["no_rag"], questions, passages) is None


def test_m4rag_fault_37_words_of_the_answer_in_a_passage_make_it_no_gold(tmp_path: Path, plan: RunPlan) -> None:
    questions = read_folder_table(tmp_path / "questions", Question)
    answers = answers_by_setting(tmp_path, plan, questions)
    passages = shown_passages(tmp_path, answers.values())
    every_option = " ".join(sorted({option for options in questions["options"].to_pylist() for option in options}))
    place = passages.column_names.index("text")
    for text in (every_option, "Nothing of the kind."):
        rewritten = passages.set_column(place, "text", [[text] * passages.num_rows])
        for setting in ("oracle", "caption_query"):
            flags = gold_shown(answers[setting], questions, rewritten)
            assert flags == gold_shown(answers[setting], questions, passages)
            assert any(flags)
    assert not all(gold_shown(answers["caption_query"], questions, passages) or [])
