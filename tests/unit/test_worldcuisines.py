"""WorldCuisines: three layouts become the same questions; what is broken is refused with file, row and remedy."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m4rag.datasets import load_documents, load_items, load_questions
from m4rag.datasets.guards import PLACEHOLDER, examine
from m4rag.datasets.prepare import prepare_questions
from m4rag.datasets.worldcuisines import parse_prompt
from m4rag.errors import BadData, UsageError
from m4rag.manifests import Manifest
from m4rag.schema import Question
from m4rag.shards import write_folder

OPTIONS = ["kola", "injera", "kitcha", "himbasha", "canjeero"]
IMAGE = "https://example.org/injera.jpg"


def v1_row(**changes: Any) -> dict[str, Any]:
    """A row of v1: the options stand only in the prompt, the gold index counts from 1."""
    listed = "\n".join(f"{number}. {option}" for number, option in enumerate(OPTIONS, start=1))
    instruction = "Print only the answer with a single answer id (1,2,3,4,5)."
    return {
        "qa_id": "17",
        "lang": "nan",
        "food_id": "387",
        "prompt_id": "46",
        "prompt_type": "3",
        "multi_choice_prompt": f"What is this?\nIt is from Eritrea.\n{listed}\n\n{instruction}",
        "open_ended_prompt": "What is this?\nIt is from Eritrea.\n\nPrint only the answer.",
        "image_url": IMAGE,
        "answer": "injera",
        "multi_choice_answer": 2,
        "task": "large_task1",
        "lang_status": "mixed",
    } | changes


def v11_row(**changes: Any) -> dict[str, Any]:
    """A row of v1.1: an option list, the gold index counts from 0, the image is a file."""
    return {
        "qa_id": 17,
        "lang": "nan",
        "food_id": 387,
        "prompt_type": 3,
        "question": "What is this?\nIt is from Eritrea.",
        "options": OPTIONS,
        "answer": "injera",
        "mcq_answer_index": 1,
        "image_path": "injera.jpg",
    } | changes


def table_row(**changes: Any) -> dict[str, Any]:
    """A row of the Parquet layout: an option list, the gold index counts from 1, the image is an address."""
    return {
        "qa_id": "17",
        "task": 1,
        "lang": "nan",
        "food_id": 387,
        "prompt_id": "46",
        "prompt_type": "3",
        "question": "What is this?\nIt is from Eritrea.",
        "options": OPTIONS,
        "answer_index": 2,
        "answer": "injera",
        "image_url": IMAGE,
    } | changes


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def parquet(path: Path, *rows: dict[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def test_every_layout_gives_the_same_question(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "injera.jpg").write_bytes(b"jpeg")
    v1 = load_questions("worldcuisines", jsonl(tmp_path / "v1.jsonl", v1_row()))
    table = load_questions("worldcuisines", parquet(tmp_path / "table.parquet", table_row()))
    listed = load_questions("worldcuisines", jsonl(tmp_path / "v11.jsonl", v11_row()))
    listed_parquet = load_questions("worldcuisines", parquet(tmp_path / "v11.parquet", v11_row()))
    assert v1 == table
    assert table == [
        Question(
            question_id="17-nan",
            dataset="worldcuisines",
            language="nan",
            question="What is this?\nIt is from Eritrea.",
            options=tuple(OPTIONS),
            answer_index=1,
            category="dish name",
            prompt_type="3",
            image=IMAGE,
            group=IMAGE,
            gold=("worldcuisines-kb:387",),
            extra={"qa_id": "17", "food_id": "387", "prompt_id": "46"},
        )
    ]
    assert listed == listed_parquet
    changed = {"image": str(tmp_path / "images" / "injera.jpg"), "group": "injera.jpg"}
    assert listed[0] == table[0].model_copy(update=changed | {"extra": table[0].extra | {"prompt_id": None}})


def test_a_folder_of_files_is_read_whole(tmp_path: Path) -> None:
    jsonl(tmp_path / "b.jsonl", v1_row(qa_id="2"))
    jsonl(tmp_path / "a.jsonl", v1_row(qa_id="1"), v1_row(qa_id="3"))
    questions = load_questions("worldcuisines", tmp_path)
    assert [question.question_id for question in questions] == ["1-nan", "3-nan", "2-nan"]
    with pytest.raises(BadData, match=r"no \.parquet or \.jsonl file"):
        (tmp_path / "empty").mkdir()
        load_questions("worldcuisines", tmp_path / "empty")


@pytest.mark.parametrize(
    ("prompt", "question", "options"),
    [
        ("Q?\n1. a\n2. b\n\nAnswer.", "Q?", ["a", "b"]),
        ("Q\nin two lines?\n1. a\n2. b\n3. c\n4. d\n\nAnswer.", "Q\nin two lines?", ["a", "b", "c", "d"]),
        ("1981?\n1. 7 Up\n2. 1. FC\n\nAnswer.", "1981?", ["7 Up", "1. FC"]),
        ("這是?\n1. \n2. b\n\nAnswer.", "這是?", ["", "b"]),
    ],
)
def test_options_are_found_inside_the_prompt(prompt: str, question: str, options: list[str]) -> None:
    assert parse_prompt(prompt) == (question, options)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("Q?\n\nAnswer.", "no numbered options"),
        ("Q?\n1. a\n2. b", "no numbered options"),
        ("Q?\n1. a\n3. b\n\nAnswer.", "numbered 1, 3"),
        ("", "no numbered options"),
    ],
)
def test_a_prompt_of_another_layout_is_refused(prompt: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        parse_prompt(prompt)
    path = jsonl(tmp_path / "v1.jsonl", v1_row(), v1_row(qa_id="18", multi_choice_prompt=prompt))
    with pytest.raises(BadData, match=rf"v1\.jsonl row 1 \(18-nan\), multi_choice_prompt: .*{message}"):
        load_questions("worldcuisines", path)


def test_a_prompt_numbered_in_digits_of_another_script_is_refused_not_misread(tmp_path: Path) -> None:
    for digits in ("١٢", "१२", "一二"):
        prompt = f"Q?\n{digits[0]}. a\n{digits[1]}. b\n\nAnswer."
        with pytest.raises(BadData, match="no numbered options"):
            load_questions("worldcuisines", jsonl(tmp_path / "v1.jsonl", v1_row(multi_choice_prompt=prompt)))


def test_a_folder_names_the_file_with_the_fault(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", v1_row(qa_id="1"))
    jsonl(tmp_path / "b.jsonl", v1_row(qa_id="2"), v1_row(qa_id="3", multi_choice_answer=6))
    with pytest.raises(BadData, match=r"b\.jsonl row 1 \(3-nan\): gold index out of range"):
        load_questions("worldcuisines", tmp_path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.jpg", "images/../../outside.jpg", "..\\outside.jpg"])
def test_an_image_path_that_leaves_its_folder_is_refused(tmp_path: Path, path: str) -> None:
    items = parquet(tmp_path / "items.parquet", v11_row(qa_id=16), v11_row(image_path=path))
    with pytest.raises(BadData, match=r"items\.parquet row 1 \(17-nan\): the image path .* leaves its folder"):
        load_questions("worldcuisines", items)


def test_the_language_code_nan_is_hokkien_in_every_layout(tmp_path: Path) -> None:
    for path in (
        jsonl(tmp_path / "v1.jsonl", v1_row()),
        jsonl(tmp_path / "v11.jsonl", v11_row()),
        parquet(tmp_path / "v11.parquet", v11_row()),
        parquet(tmp_path / "table.parquet", table_row()),
    ):
        (question,) = load_questions("worldcuisines", path)
        assert (question.language, question.question_id) == ("nan", "17-nan")
        made = prepare_questions("worldcuisines", path, tmp_path / f"made-{path.name}")
        assert made.counts["varieties"] == {"nan": 1}


@pytest.mark.parametrize(
    ("language", "question"),
    [
        ("sc", "Custu est unu pratu de sa cughina <CUISINE>. Comente si narat?"),
        ("ru_formal", "Это блюдо <CUISINE.acc> кухни?"),
        ("sc", "Soe in LOCATION. Ite est custu?"),
    ],
)
def test_a_template_variable_that_was_never_filled_in_is_found(tmp_path: Path, language: str, question: str) -> None:
    rows = [table_row(lang=language, question=question), table_row(qa_id="18", lang=language)]
    items = load_items("worldcuisines", parquet(tmp_path / "items.parquet", *rows))
    (found,) = (f for f in examine(items, "worldcuisines", tmp_path) if f.check == "unfilled placeholders in questions")
    assert (found.level, found.count, found.example) == ("warning", 1, f"row 0 (17-{language})")


def test_every_sardinian_question_with_a_context_is_flagged_in_the_real_data(shared_data: Path) -> None:
    items = load_items("worldcuisines", shared_data / "test_large.parquet")
    rows = items.filter(pa.compute.equal(items["language"], "sc")).to_pylist()
    flagged = Counter(row["prompt_type"] for row in rows if re.search(PLACEHOLDER, row["question"]))
    assert flagged == {"3": 500, "4": 500}


@pytest.mark.parametrize("column", ["qa_id", "lang", "answer_index", "options", "image_url", "food_id"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    row = table_row()
    del row[column]
    with pytest.raises(BadData, match=rf"items\.parquet: no column '{column}', as WorldCuisines in layout table"):
        load_questions("worldcuisines", parquet(tmp_path / "items.parquet", row))


@pytest.mark.parametrize("index", [0, 6, -1])
def test_a_gold_index_out_of_range_is_refused_with_its_row(tmp_path: Path, index: int) -> None:
    path = parquet(tmp_path / "items.parquet", table_row(qa_id="16"), table_row(answer_index=index))
    with pytest.raises(BadData, match=r"items\.parquet row 1 \(17-nan\): gold index out of range"):
        load_questions("worldcuisines", path)


def test_a_gold_index_that_counts_from_the_wrong_base_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "items.parquet", table_row(answer_index=1))
    with pytest.raises(BadData, match=r"gold option is not the answer text.*counted from 0"):
        load_questions("worldcuisines", path)


def test_a_fourth_option_of_five_is_in_range_only_where_there_are_four(tmp_path: Path) -> None:
    four = table_row(options=OPTIONS[:4], answer_index=4, answer="himbasha")
    assert load_questions("worldcuisines", parquet(tmp_path / "four.parquet", four))[0].answer_index == 3
    with pytest.raises(BadData, match="out of range"):
        load_questions("worldcuisines", parquet(tmp_path / "five.parquet", four | {"answer_index": 5}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lang": "jv_kramma"}, r"row 1 \(17-jv_kramma\): unknown language code 'jv_kramma'\. Did you mean jv_krama"),
        ({"prompt_type": "9"}, r"row 1 \(17-nan\): unknown prompt types"),
        ({"qa_id": "16"}, r"row 1 \(16-nan\): doubled question ids"),
        ({"question": "  "}, r"row 1 \(17-nan\): empty questions or options"),
        ({"options": ["injera"], "answer_index": 1}, r"row 1 \(17-nan\): not two to eight options"),
    ],
)
def test_what_can_not_be_scored_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = parquet(tmp_path / "items.parquet", table_row(qa_id="16"), table_row(**changes))
    with pytest.raises(BadData, match=message):
        load_questions("worldcuisines", path)


@pytest.mark.parametrize("column", [[None, "en"], [float("nan"), 1.0]])
def test_hokkien_turned_into_a_missing_value_is_refused(tmp_path: Path, column: list[Any]) -> None:
    rows = [table_row(qa_id=str(number), lang=code) for number, code in enumerate(column)]
    with pytest.raises(BadData, match="keep_default_na=False"):
        load_questions("worldcuisines", parquet(tmp_path / "items.parquet", *rows))


def test_all_varieties_without_hokkien_is_a_lost_code(shared_data: Path, tmp_path: Path) -> None:
    table = pq.read_table(shared_data / "test_large.parquet")
    lost = table.filter(pa.compute.not_equal(table["lang"], "nan"))
    pq.write_table(lost, tmp_path / "items.parquet")
    with pytest.raises(BadData, match="took 'nan' for a missing value"):
        load_questions("worldcuisines", tmp_path / "items.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.parquet", b"no parquet", "not a Parquet file"),
        ("items.jsonl", b"{broken", r"not a \.jsonl table"),
        ("items.jsonl", b"", r"not a \.jsonl table"),
        ("items.xlsx", b"", "format '.xlsx' is not known"),
        ("items.parquet", None, "no such file"),
        ("items.jsonl", None, "no such file"),
        ("nowhere", None, "no such file"),
    ],
)
def test_an_unreadable_file_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadData, match=message):
        load_questions("worldcuisines", tmp_path / name)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "items.parquet", table_row())
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(BadData, match=r"items\.parquet: no rows"):
        load_questions("worldcuisines", path)
    (worst, *_) = examine(load_items("worldcuisines", path), "worldcuisines", tmp_path)
    assert (worst.level, worst.check) == ("error", "no rows")


def test_what_is_asked_for_must_make_sense(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown dataset 'worldcusines'"):
        load_questions("worldcusines")
    with pytest.raises(UsageError, match="--items"):
        load_questions("worldcuisines")
    with pytest.raises(UsageError, match="inside the package"):
        load_questions("sample", tmp_path)
    with pytest.raises(UsageError, match="limit of 0"):
        load_questions("worldcuisines", jsonl(tmp_path / "v1.jsonl", v1_row()), 0)
    with pytest.raises(UsageError, match="unknown source 'wiki'"):
        load_documents("wiki")
    with pytest.raises(UsageError, match="Name the file"):
        load_documents("jsonl")


def test_the_real_file_is_read_whole_and_its_known_defects_are_found(shared_data: Path) -> None:
    items = load_items("worldcuisines", shared_data / "test_large.parquet")
    findings = {finding.check: finding for finding in examine(items, "worldcuisines", shared_data)}
    counts = {check: (finding.level, finding.count) for check, finding in findings.items() if finding.count}
    assert counts == {
        "not five options": ("warning", 45 * 30),
        "two options with the same text": ("warning", 799),
        "corrupt Cantonese origin questions": ("warning", 500),
        "unfilled placeholders in questions": ("warning", 2045),
        "rows": ("ok", 60_000),
        "whole split": ("ok", 60_000),
        "rows in written Hokkien (code nan)": ("ok", 2000),
    }
    assert findings["cells (variety and prompt type) without 500 rows"].level == "ok"


def test_images_that_are_not_there_are_found(tmp_path: Path) -> None:
    (tmp_path / "injera.jpg").write_bytes(b"jpeg")
    rows = [v11_row(), v11_row(qa_id=18, image_path="gone.jpg"), v11_row(qa_id=19, image_path=None)]
    items = load_items("worldcuisines", jsonl(tmp_path / "items.jsonl", *rows))
    (found,) = (f for f in examine(items, "worldcuisines", tmp_path) if f.check == "questions without an image")
    assert (found.level, found.count, found.example) == ("warning", 2, "row 1 (18-nan)")
    assert load_questions("worldcuisines", tmp_path / "items.jsonl")[2].image is None


def test_a_part_of_the_split_and_uneven_cells_are_found(tmp_path: Path) -> None:
    rows = [table_row(), table_row(qa_id="18"), table_row(lang="en")]
    items = load_items("worldcuisines", parquet(tmp_path / "items.parquet", *rows))
    findings = {finding.check: finding for finding in examine(items, "worldcuisines", tmp_path)}
    assert findings["whole split"].level == "warning"
    uneven = findings["cells (variety and prompt type) without 2 rows"]
    assert (uneven.level, uneven.count, uneven.example) == ("warning", 1, "en, prompt type 3: 1")


def test_a_limit_takes_whole_parallel_questions_evenly(shared_data: Path) -> None:
    path = shared_data / "test_large.parquet"
    taken = load_questions("worldcuisines", path, 600)
    assert set(Counter(question.language for question in taken).values()) == {20}
    assert Counter(question.prompt_type for question in taken) == {"1": 150, "2": 150, "3": 150, "4": 150}
    assert set(Counter(question.extra["qa_id"] for question in taken).values()) == {30}
    larger = load_questions("worldcuisines", path, 720)
    assert {question.question_id for question in taken} < {question.question_id for question in larger}
    odd = load_questions("worldcuisines", path, 613)
    assert len(odd) == 613
    assert set(Counter(question.language for question in odd).values()) == {20, 21}


def test_a_limit_below_one_parallel_question_still_spreads(shared_data: Path) -> None:
    taken = load_questions("worldcuisines", shared_data / "test_large.parquet", 24)
    assert len({question.language for question in taken}) == 24
    assert Counter(question.prompt_type for question in taken) == {"1": 6, "2": 6, "3": 6, "4": 6}


def test_a_limit_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [table_row(qa_id=str(number), lang=code) for number in range(9) for code in ("en", "fr", "nan")]
    forth = load_questions("worldcuisines", parquet(tmp_path / "forth.parquet", *rows), 10)
    back = load_questions("worldcuisines", parquet(tmp_path / "back.parquet", *rows[::-1]), 10)
    assert len(forth) == 10
    assert forth == back[::-1]


def test_a_prepared_folder_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    questions = load_questions("worldcuisines", parquet(tmp_path / "items.parquet", table_row(), table_row(qa_id="18")))
    made_by = Manifest(kind="questions", command="test")
    write_folder(tmp_path / "prepared", Question, questions, made_by)
    assert load_questions("worldcuisines", tmp_path / "prepared") == questions
    columns = ["question_id", "qa_id", "language", "food_id", "options", "answer_index", "group"]
    direct = load_items("worldcuisines", tmp_path / "items.parquet").select(columns)
    assert load_items("worldcuisines", tmp_path / "prepared").select(columns).equals(direct)


def test_the_knowledge_base_becomes_documents(shared_data: Path) -> None:
    documents = {
        document.document_id: document for document in load_documents("worldcuisines-kb", shared_data / "dishes.csv")
    }
    assert len(documents) == 2240
    rawon = documents["worldcuisines-kb:0"]
    assert (rawon.title, rawon.language, rawon.license) == ("Rawon", "en", "CC-BY-SA-4.0")
    assert rawon.extra["aliases"]["ja"] == "ラウォン"
    assert rawon.extra["categories"] == ["soup", "beef soup"]
    assert [document.title for document in documents.values() if not document.text] == ["Pickled pigs' feet"]
    gold = {name for q in load_questions("worldcuisines", shared_data / "test_large.parquet", 3000) for name in q.gold}
    assert gold <= documents.keys()


def dish(**changes: Any) -> dict[str, Any]:
    return {
        "food_id": "7",
        "Name": "Null",
        "Text Description": "A dish,\nin two lines.",
        "Alias": '{"ja - Japanese": "ナル", "nan - Minnan": "nan"}',
        "Cuisines": '["Eritrean"]',
        "Countries": "['Eritrea']",
        "Coarse-grained categories": "[]",
        "Fine-grained categories": "[]",
    } | changes


def csv(path: Path, *rows: dict[str, Any]) -> Path:
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    quoted = [",".join('"' + str(cell).replace('"', '""') + '"' for cell in line) for line in lines]
    path.write_text("\n".join(quoted) + "\n", encoding="utf-8")
    return path


def test_a_dish_called_null_stays_what_it_is(tmp_path: Path) -> None:
    (document,) = load_documents("worldcuisines-kb", csv(tmp_path / "kb.csv", dish()))
    assert (document.title, document.text) == ("Null", "A dish,\nin two lines.")
    assert document.extra["aliases"] == {"ja": "ナル", "nan": "nan"}
    assert document.extra["countries"] == ["Eritrea"]


def test_a_knowledge_base_in_parquet_reads_the_same(tmp_path: Path) -> None:
    lists = {
        "Cuisines": ["Eritrean"],
        "Countries": ["Eritrea"],
        "Alias": {"ja - Japanese": "ナル", "nan - Minnan": "nan"},
    }
    rows = [dish(food_id=7, **lists, **{"Coarse-grained categories": [], "Fine-grained categories": []})]
    from_parquet = list(load_documents("worldcuisines-kb", parquet(tmp_path / "kb.parquet", *rows)))
    assert from_parquet == list(load_documents("worldcuisines-kb", csv(tmp_path / "kb.csv", dish())))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"Name": "x", "Text Description": "y"}], "no column 'food_id', as the knowledge base has"),
        ([dish(Alias="ja: x")], r"row 0, Alias: not a JSON object of language to name: 'ja: x'"),
        ([dish(Cuisines="Eritrean")], r"row 0, Cuisines: not a list: 'Eritrean'"),
        ([dish(Alias='{"ja - Japanese": "a", "ja - Jepun": "b"}')], "two names in language 'ja'"),
        ([dish(Name="")], "row 0: a dish without a name"),
        ([dish(), dish()], "document id 'worldcuisines-kb:7' occurs twice"),
    ],
)
def test_a_broken_knowledge_base_is_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BadData, match=message):
        list(load_documents("worldcuisines-kb", csv(tmp_path / "kb.csv", *rows)))


def document(**changes: Any) -> dict[str, Any]:
    return {"document_id": "x:1", "title": "ጤፍ", "text": "እህል", "language": "am", "source": "x"} | changes


def test_any_documents_are_read_from_json_lines(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "documents.jsonl", document(), document(document_id="x:2", language="nan"))
    documents = list(load_documents("jsonl", path))
    assert [(row.document_id, row.language, row.title) for row in documents] == [
        ("x:1", "am", "ጤፍ"),
        ("x:2", "nan", "ጤፍ"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"language": "tlh"}, r"line 2: unknown language code 'tlh'"),
        ({"titel": "?"}, r"line 2: titel: Extra inputs"),
        ({"text": None}, r"line 2: text: "),
        ({"document_id": "x:1"}, "document id 'x:1' occurs twice"),
    ],
)
def test_a_broken_document_is_refused_with_its_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = jsonl(tmp_path / "documents.jsonl", document(), document(document_id="x:2") | changes)
    with pytest.raises(BadData, match=message):
        list(load_documents("jsonl", path))
