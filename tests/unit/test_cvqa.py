"""CVQA: the published Parquet becomes two questions a row; what is broken is refused with file, row and remedy."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from content_server import model_server
from cvqa_files import SCHEMA, parquet, picture, row, shade
from PIL import Image

from m4rag.bench.benchmark import Request, default_settings, run
from m4rag.bench.runs import RunPlan
from m4rag.bench.scoring import score
from m4rag.datasets import cvqa, load_items, load_questions
from m4rag.datasets.cvqa import PAIR_ROWS, ROWS, parse_subset, picture_groups
from m4rag.datasets.guards import Finding, examine
from m4rag.datasets.prepare import prepare_questions
from m4rag.errors import BadData, UsageError
from m4rag.languages import COUNTRIES, CVQA_PAIRS, LANGUAGES, cvqa_pair, lookup
from m4rag.manifests import Manifest
from m4rag.progress import silent
from m4rag.schema import Answer, Question, Status
from m4rag.settings import Settings
from m4rag.vlm.prompts import answer_schema


def with_files(path: Path, *rows: dict[str, Any]) -> Path:
    """The re-released layout: the path of a file in place of the picture."""
    schema = SCHEMA.remove(0).append(pa.field("image_path", pa.string()))
    bare = [{name: value for name, value in each.items() if name != "image"} for each in rows]
    return parquet(path, *bare, schema=schema)


def pairs() -> dict[str, str]:
    """Pair to the text of its `Subset` cell."""
    names = {language.iso639_3: language.cvqa_name for language in LANGUAGES.values()}
    return {pair: str((names[pair[:3]], COUNTRIES[pair[-2:]])) for pair in CVQA_PAIRS}


def findings(path: Path) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(load_items("cvqa", path), "cvqa", path.parent)}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from m4rag.settings import settings

    monkeypatch.setenv("M4RAG_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    return tmp_path / "home"


def test_a_row_is_asked_in_english_and_in_its_own_language(tmp_path: Path, home: Path) -> None:
    english, local = load_questions("cvqa", parquet(tmp_path / "test.parquet", row()))
    assert local.image is not None
    assert Path(local.image).read_bytes() == picture()
    digest = Path(local.image).stem
    assert Path(local.image) == home / "images" / digest[:2] / f"{digest}.jpg"
    assert local == Question(
        question_id="5919991144272485961_0-local",
        dataset="cvqa",
        language="jav-ID",
        question="Panganan iki jenenge apa?",
        options=("gudeg", "rawon", "soto", "tempe"),
        answer_index=1,
        category="Cooking and food",
        prompt_type="local",
        image=local.image,
        group="5919991144272485961",
        extra={
            "qa_id": "5919991144272485961_0",
            "pair": "jav-ID",
            "license": "CC BY 4.0",
            "image_type": "Self",
            "image_source": "Self-open",
            "image_digest": digest,
        },
    )
    assert english == local.model_copy(
        update={
            "question_id": "5919991144272485961_0-en",
            "language": "en",
            "question": "What is this food called?",
            "options": ("Gudeg", "Rawon", "Soto", "Tempeh"),
            "prompt_type": "english",
        }
    )


@pytest.mark.parametrize("folder", ["", "images"])
def test_pictures_as_files_give_the_same_questions(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder / "jawa").mkdir(parents=True)
    (tmp_path / folder / "jawa" / "1.jpg").write_bytes(picture())
    files = load_questions("cvqa", with_files(tmp_path / "files.parquet", row(image_path="jawa/1.jpg")))
    inside = load_questions("cvqa", parquet(tmp_path / "inside.parquet", row()))
    assert [question.image for question in files] == [str(tmp_path / folder / "jawa" / "1.jpg")] * 2
    assert [q.model_copy(update={"image": None}) for q in files] == [
        q.model_copy(update={"image": None}) for q in inside
    ]


def test_every_pair_is_a_variety_that_the_tables_know(tmp_path: Path) -> None:
    rows = [row(ID=f"{number}_0", Subset=text) for number, text in enumerate(pairs().values())]
    asked = load_questions("cvqa", parquet(tmp_path / "test.parquet", *rows))
    assert {question.extra["pair"] for question in asked} == set(CVQA_PAIRS) == set(PAIR_ROWS)
    assert len({lookup(question.language).code for question in asked if question.prompt_type == "local"}) == 39
    assert len({lookup(question.language).language.code for question in asked}) == 32


@pytest.mark.parametrize(
    ("language", "country", "pair"),
    [
        ("Egyptian_Arabic", "Egypt", "arz-EG"),
        ("Sinhala", "Sri_Lanka", "sin-LK"),
        ("Sinhala", "Sri Lanka", "sin-LK"),
        ("Korean", "South Korea", "kor-KR"),
        ("Korean", "South_Korea", "kor-KR"),
        ("Urdu", "Pakistan", "urd-PK"),
        ("Chinese", "Singapore", "zho-SG"),
    ],
)
def test_pairs_are_found_however_their_names_are_spaced(language: str, country: str, pair: str) -> None:
    assert cvqa_pair(language, country) == pair


def test_an_unknown_pair_is_refused_with_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"'Urdu' and country 'Nepal'\. CVQA has Urdu of India, Pakistan"):
        cvqa_pair("Urdu", "Nepal")
    with pytest.raises(UsageError, match="Did you mean javanese"):
        cvqa_pair("Javanesse", "Indonesia")


def test_m4rag_fault_23_the_subset_is_read_as_data_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = parquet(tmp_path / "test.parquet", row(), row(ID="2_0", Subset=f"open({str(mark)!r}, 'w')"))
    with pytest.raises(BadData, match=r"test\.parquet row 1 \(2_0\): Subset is not a tuple of language and country"):
        load_questions("cvqa", path)
    assert not mark.exists()


@pytest.mark.parametrize("text", ["", "Javanese", "('Javanese',)", "['Urdu', 'India']", "('Urdu', 1)", "(" * 500, "(1"])
def test_a_subset_that_is_no_tuple_of_two_texts_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Subset is not a tuple"):
        parse_subset(text)


def test_labels_withheld_for_a_leaderboard_are_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "test.parquet", row(Label=-1), row(ID="2_0", Label=-1))
    with pytest.raises(
        BadData, match=r"row 0 \(5919991144272485961_0-en\): labels withheld \(-1\) \(4 rows\)\. .*use one"
    ):
        load_questions("cvqa", path)
    assert findings(path)["labels withheld (-1)"].level == "error"


@pytest.mark.parametrize("label", [4, -2])
def test_a_label_that_is_no_option_is_refused_with_its_row(tmp_path: Path, label: int) -> None:
    path = parquet(tmp_path / "test.parquet", row(), row(ID="2_0", Label=label))
    with pytest.raises(BadData, match=r"test\.parquet row 1 \(2_0-en\): gold index out of range"):
        load_questions("cvqa", path)


def test_labels_that_went_through_fractions_are_refused(tmp_path: Path) -> None:
    schema = SCHEMA.set(SCHEMA.get_field_index("Label"), pa.field("Label", pa.float64()))
    path = parquet(tmp_path / "test.parquet", row(Label=1.0), schema=schema)
    with pytest.raises(BadData, match=r"test\.parquet, Label: the column holds double, not integers"):
        load_questions("cvqa", path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ID": None}, r"row 1: no ID"),
        ({"ID": "5919"}, r"row 1 \(5919\): ID '5919' is not <picture>_<number>"),
        ({"ID": "5919_٣"}, r"row 1 .*is not <picture>_<number>"),
        ({"Subset": None}, r"row 1 \(2_0\): no Subset"),
        ({"Subset": "('Javanese', 'Japan')"}, r"row 1 \(2_0\): unknown CVQA pair .* CVQA has Javanese of Indonesia"),
        ({"Label": None}, r"row 1 \(2_0\): no Label"),
        ({"Options": ["a", "b", "c"]}, r"row 1 \(2_0\): 3 options and 4 translated ones, for one label"),
        ({"Question": " "}, r"row 1 \(2_0-local\): empty questions or options"),
        ({"Translated Question": None}, r"row 1 \(2_0-en\): empty questions or options"),
        ({"ID": "5919991144272485961_0"}, r"row 1 \(5919991144272485961_0-en\): doubled question ids"),
    ],
)
def test_what_can_not_be_asked_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = parquet(tmp_path / "test.parquet", row(), row(**{"ID": "2_0"} | changes))
    with pytest.raises(BadData, match=message):
        load_questions("cvqa", path)


@pytest.mark.parametrize("column", ["image", "ID", "Subset", "Translated Options", "Label", "License"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    path = parquet(tmp_path / "test.parquet", row(), schema=SCHEMA.remove(SCHEMA.get_field_index(column)))
    with pytest.raises(BadData, match=rf"test\.parquet: no column '{column}', as CVQA has"):
        load_questions("cvqa", path)


def test_several_files_name_the_one_with_the_fault(tmp_path: Path) -> None:
    parquet(tmp_path / "data" / "test-00000-of-00002.parquet", row())
    parquet(tmp_path / "data" / "test-00001-of-00002.parquet", row(ID="2_0"), row(ID="3_0", Label=7))
    with pytest.raises(BadData, match=r"data test-00001-of-00002\.parquet row 1 \(3_0-en\): gold index out of range"):
        load_questions("cvqa", tmp_path / "data")


def test_a_folder_that_lacks_one_of_its_numbered_files_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "data" / "test-00000-of-00003.parquet", row())
    parquet(tmp_path / "data" / "test-00002-of-00003.parquet", row(ID="2_0"))
    with pytest.raises(BadData, match="1 of 3 files are missing, first test-00001-of-00003"):
        load_questions("cvqa", tmp_path / "data")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "test.parquet", row())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadData, match=r"test\.parquet: not a Parquet file"):
        load_questions("cvqa", path)


def test_a_damaged_page_is_refused(tmp_path: Path) -> None:
    noise = [row(ID=f"{number}_0", Question=f"{random.Random(number).random()}?") for number in range(50)]
    path = parquet(tmp_path / "test.parquet", *noise)
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)
    with pytest.raises(BadData, match=r"test\.parquet row 0 or later: damaged"):
        load_questions("cvqa", path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../../outside.jpg", "C:\\outside.jpg", "https://example.org/a.jpg"])
def test_the_path_beside_embedded_bytes_is_never_used(tmp_path: Path, home: Path, path: str) -> None:
    asked = load_questions(
        "cvqa", parquet(tmp_path / "test.parquet", row(image={"bytes": picture(kind="PNG"), "path": path}))
    )
    written = [file for file in home.rglob("*") if file.is_file()]
    assert [str(file) for file in written] == [asked[0].image]
    assert written[0].suffix == ".png"


def test_a_path_without_bytes_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real.jpg").write_bytes(picture())
    path = parquet(tmp_path / "test.parquet", row(image={"bytes": None, "path": str(tmp_path / "real.jpg")}))
    with pytest.raises(BadData, match=r"row 0 .*questions whose image can't be shown .*no image bytes"):
        load_questions("cvqa", path)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../outside.jpg", "a/../../b.jpg", "..\\b.jpg", "C:\\b.jpg", "", "a\0"]
)
def test_an_image_path_that_leaves_its_folder_is_refused(tmp_path: Path, path: str) -> None:
    items = with_files(tmp_path / "test.parquet", row(image_path=path))
    with pytest.raises(BadData, match=r"row 0 \(5919991144272485961_0\): the image path .* leaves its folder"):
        load_questions("cvqa", items)


@pytest.mark.parametrize("data", [None, b"", b"<html>404</html>", picture()[:80]])
def test_a_picture_that_is_none_is_refused_before_anything_is_asked(tmp_path: Path, data: bytes | None) -> None:
    path = parquet(tmp_path / "test.parquet", row(), row(ID="2_0", image={"bytes": data, "path": "a.jpg"}))
    with pytest.raises(BadData, match=r"row 1 \(2_0-en\): questions whose image can't be shown"):
        load_questions("cvqa", path)
    assert findings(path)["questions whose image can't be shown"].count == 2


def test_picture_files_that_are_not_there_are_a_warning_and_not_asked_about(tmp_path: Path) -> None:
    path = with_files(tmp_path / "test.parquet", row(image_path="gone.jpg"))
    found = findings(path)["questions without an image"]
    assert (found.level, found.count) == ("warning", 2)


def test_picture_files_beside_a_relative_path_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = with_files(tmp_path / "data" / "test.parquet", row(image_path="here.jpg"))
    (tmp_path / "data" / "here.jpg").write_bytes(picture())
    monkeypatch.chdir(tmp_path)
    assert findings(items.relative_to(tmp_path))["questions without an image"].level == "ok"
    assert Path(str(load_questions("cvqa", items.relative_to(tmp_path))[0].image)).is_absolute()


def test_one_picture_under_two_names_is_one_group(tmp_path: Path) -> None:
    other = {"bytes": picture("red"), "path": None}
    rows = [row(ID="b_0"), row(ID="b_1"), row(ID="a_0"), row(ID="c_0", image=other)]
    path = parquet(tmp_path / "test.parquet", *rows)
    groups = {question.extra["qa_id"]: question.group for question in load_questions("cvqa", path)}
    assert groups == {"b_0": "a", "b_1": "a", "a_0": "a", "c_0": "c"}
    found = findings(path)["pictures under several names, or names of several pictures"]
    assert (found.level, found.count) == ("warning", 4)


def test_groups_do_not_depend_on_the_order_of_rows_and_join_through_chains() -> None:
    rows = [("a", "1"), ("b", "1"), ("b", "2"), ("c", "2"), ("d", "3"), ("e", None)]
    for seed in range(20):
        shuffled = random.Random(seed).sample(rows, len(rows))
        groups = picture_groups(*zip(*shuffled, strict=True))
        assert dict(zip(shuffled, groups, strict=True)) == {pair: "a" if pair[0] in "abc" else pair[0] for pair in rows}


def test_intervals_resample_pictures_not_prompts(tmp_path: Path) -> None:
    rows = [row(ID=f"{n // 3}_{n % 3}", image=shade(n // 3)) for n in range(30)]
    asked = load_questions("cvqa", parquet(tmp_path / "test.parquet", *rows))
    common: dict[str, Any] = {"setting": "no_rag", "model": "m", "choice": 1, "status": Status.OK, "raw": ""}
    answers = [Answer(question_id=question.question_id, **common) for question in asked]
    (scored,) = score(asked, answers, resamples=20).settings
    assert (scored.n, scored.accuracy.groups) == (60, 10)
    assert set(scored.breakdowns["prompt_type"]) == {"english", "local"}
    assert set(scored.breakdowns["language"]) == {"en", "jv"}
    assert set(scored.breakdowns["category"]) == {"Cooking and food"}


def test_m4rag_fault_24_a_picture_is_written_once_however_many_questions_show_it(tmp_path: Path, home: Path) -> None:
    path = parquet(tmp_path / "test.parquet", *(row(ID=f"1_{number}") for number in range(5)))
    asked = load_questions("cvqa", path)
    assert len({question.image for question in asked}) == 1
    (written,) = (file for file in home.rglob("*") if file.is_file())
    before = written.stat().st_mtime_ns
    load_questions("cvqa", path)
    assert written.stat().st_mtime_ns == before


def test_pictures_are_never_all_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def noise(number: int) -> bytes:
        buffer = io.BytesIO()
        Image.frombytes("RGB", (256, 256), random.Random(number).randbytes(3 * 256 * 256)).save(buffer, "PNG")
        return buffer.getvalue()

    rows = [row(ID=f"{number}_0", image={"bytes": noise(number), "path": None}) for number in range(160)]
    path = tmp_path / "test.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=16)
    del rows
    held: list[int] = []
    before = pa.total_allocated_bytes()
    check = cvqa.check

    def watched(data: bytes | None) -> Any:
        held.append(pa.total_allocated_bytes() - before)
        return check(data)

    monkeypatch.setattr(cvqa, "check", watched)
    load_questions("cvqa", path)
    assert path.stat().st_size > 30 * 2**20
    assert len(held) == 2 * 160
    assert max(held) < 12 * 2**20


def test_a_limit_spreads_over_pairs_and_keeps_both_prompts(tmp_path: Path, home: Path) -> None:
    rows = [
        row(ID=f"{pair}{n}_0", Subset=text, image=shade(4 * place + n))
        for place, (pair, text) in enumerate(pairs().items())
        for n in range(1 + place % 4)
    ]
    path = parquet(tmp_path / "test.parquet", *rows)
    taken = load_questions("cvqa", path, 2 * 39)
    assert Counter(question.extra["pair"] for question in taken) == dict.fromkeys(CVQA_PAIRS, 2)
    assert Counter(question.prompt_type for question in taken) == {"english": 39, "local": 39}
    assert len(list(home.rglob("*.png"))) == 39
    few = load_questions("cvqa", path, 10)
    assert {question.question_id for question in few} < {question.question_id for question in taken}
    assert len(load_questions("cvqa", path, 11)) == 11


def test_the_whole_split_is_told_from_a_part(tmp_path: Path) -> None:
    texts = pairs()
    small = {"bytes": picture(kind="PNG"), "path": None}
    rows = [
        row(ID=f"{pair}{number}_0", Subset=texts[pair], image=small)
        for pair, count in PAIR_ROWS.items()
        for number in range(count)
    ]
    assert len(rows) == ROWS
    found = findings(parquet(tmp_path / "test.parquet", *rows))
    assert (found["whole split"].level, found["whole split"].count) == ("ok", 20_748)
    assert found["pairs without their published number of rows"].level == "ok"
    found = findings(parquet(tmp_path / "part.parquet", *rows[2:]))
    assert found["whole split"].level == "warning"
    off = found["pairs without their published number of rows"]
    assert (off.level, off.count, off.example) == ("warning", 1, "ind-ID: 410, published 412")


def test_m4rag_fault_29_pictures_for_research_only_are_told(tmp_path: Path) -> None:
    rows = [
        row(ID="1_0", **{"Image Source": "Self-research_only"}),
        row(ID="2_0", License=None),
        row(ID="3_0", Category="Food"),
        row(ID="4_0", Options=["a", "a", "b", "c"]),
        row(ID="5_0", Options=["a", "b", "c"], **{"Translated Options": ["a", "b", "c"]}),
    ]
    found = findings(parquet(tmp_path / "test.parquet", *rows))
    counts = {check: finding.count for check, finding in found.items() if finding.level == "warning"}
    assert counts == {
        "whole split": 10,
        "pairs without their published number of rows": 39,
        "pictures for research only, or without a licence": 4,
        "categories that CVQA does not have": 2,
        "two options with the same text": 1,
        "not four options": 2,
        "pictures under several names, or names of several pictures": 8,
    }


def test_m4rag_fault_29_a_prepared_folder_counts_its_licences_and_can_be_moved(tmp_path: Path) -> None:
    rows = [row(), row(ID="2_0", Subset="('Breton', 'France')", image={"bytes": picture("red"), "path": None})]
    path = parquet(tmp_path / "test.parquet", *rows)
    made = prepare_questions("cvqa", path, tmp_path / "made")
    assert made.counts["images"] == 2
    assert made.counts["pair"] == {"jav-ID": 2, "bre-FR": 2}
    assert made.counts["license"] == {"CC BY 4.0": 4}
    assert made.counts["varieties"] == {"en": 2, "jav-ID": 1, "bre-FR": 1}
    path.unlink()
    shutil.move(tmp_path / "made", tmp_path / "elsewhere")
    moved = load_questions("cvqa", tmp_path / "elsewhere")
    assert {Path(str(question.image)).read_bytes() for question in moved} == {picture(), picture("red")}
    assert all(str(question.image).startswith(str(tmp_path / "elsewhere")) for question in moved)


def test_a_prepared_folder_is_checked_like_what_it_was_made_of(tmp_path: Path) -> None:
    path = parquet(tmp_path / "test.parquet", row(), row(ID="2_0", **{"Image Source": "Self-research_only"}))
    prepare_questions("cvqa", path, tmp_path / "made")

    def seen(items: Path, root: Path) -> dict[str, tuple[str, int]]:
        return {f.check: (f.level, f.count) for f in examine(load_items("cvqa", items), "cvqa", root)}

    assert seen(tmp_path / "made", tmp_path / "made") == seen(path, tmp_path)
    next((tmp_path / "made" / "images").rglob("*.jpg")).unlink()
    assert seen(tmp_path / "made", tmp_path / "made")["questions without an image"] == ("warning", 4)


def test_the_digest_of_what_is_prepared_is_of_its_content(tmp_path: Path) -> None:
    one = prepare_questions("cvqa", parquet(tmp_path / "a" / "test.parquet", row()), tmp_path / "one")
    two = prepare_questions("cvqa", parquet(tmp_path / "b" / "other.parquet", row()), tmp_path / "two")
    other = row(image={"bytes": picture("red"), "path": None})
    three = prepare_questions("cvqa", parquet(tmp_path / "test.parquet", other), tmp_path / "three")
    assert one.digest == two.digest != three.digest
    assert Manifest.read(tmp_path / "one").identity == Manifest.read(tmp_path / "two").identity


def test_questions_of_another_dataset_are_refused(tmp_path: Path) -> None:
    prepare_questions("cvqa", parquet(tmp_path / "test.parquet", row()), tmp_path / "made")
    for load in (load_questions, load_items):
        with pytest.raises(BadData, match="the questions are of cvqa, not of worldcuisines"):
            load("worldcuisines", tmp_path / "made")


def asked_without(tmp_path: Path, change: Callable[[Question], Question], **request: Any) -> None:
    """Run a benchmark of a prepared folder; no server is needed, because it must be refused before."""
    made = tmp_path / "made"
    prepare_questions("cvqa", parquet(tmp_path / "test.parquet", row()), made)
    from m4rag.shards import write_folder

    changed = [change(question) for question in load_questions("cvqa", made)]
    write_folder(tmp_path / "changed", Question, changed, Manifest(kind="questions", command="test"))

    class NoServer:
        def __enter__(self) -> str:
            raise AssertionError("the model must not be asked")

        def __exit__(self, *details: object) -> None: ...

    run(Request(dataset="cvqa", items=tmp_path / "changed", **request), Settings(), NoServer(), silent)


def test_m4rag_fault_13_a_question_is_not_asked_without_its_picture(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"2 questions have no image, first 5919991144272485961_0-en\. .*--images none"):
        asked_without(tmp_path, lambda q: q.model_copy(update={"image": None}), settings=("no_rag",))


def test_oracle_settings_without_gold_documents_are_refused_before_the_model_is_asked(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="2 questions name no gold document"):
        asked_without(tmp_path, lambda q: q, settings=("oracle_query",), index="x")


def test_the_settings_of_a_run_that_names_none() -> None:
    assert default_settings("all", has_gold=True) == ("text_only", "no_rag", "oracle", "oracle_query", "caption_query")
    assert default_settings("none", has_gold=True) == ("no_rag", "oracle", "oracle_query")
    assert default_settings("all", has_gold=False) == ("text_only", "no_rag")
    assert default_settings("none", has_gold=False) == ("no_rag",)


def test_the_label_reaches_the_scorer_of_predictions(tmp_path: Path) -> None:
    from m4rag.bench.predictions import score_predictions

    path = parquet(tmp_path / "test.parquet", row(ID="1_0"), row(ID="2_0", Label=3))
    given = [("1_0-en", "2"), ("1_0-local", "2"), ("2_0-en", "4"), ("2_0-local", "1")]
    lines = [json.dumps({"question_id": name, "prediction": text}) for name, text in given]
    (tmp_path / "p.jsonl").write_text("\n".join(lines) + "\n")
    scores = score_predictions("cvqa", path, tmp_path / "p.jsonl", resamples=20)
    assert (scores.n, scores.accuracy.value) == (4, 75)
    assert scores.macro_by_prompt_type["local"].value == 50
    assert set(scores.by_variety["english"]) == {"jav-ID"}


def test_m4rag_fault_35_the_mean_over_pairs_is_not_that_over_languages_of_prompts(tmp_path: Path) -> None:
    rows = [row(ID=f"{n}_0", image=shade(n)) for n in range(3)]
    rows.append(row(ID="3_0", Subset="('Breton', 'France')", image=shade(3)))
    asked = load_questions("cvqa", parquet(tmp_path / "test.parquet", *rows))
    common: dict[str, Any] = {"setting": "no_rag", "model": "m", "status": Status.OK, "raw": ""}
    answers = [
        Answer(question_id=question.question_id, choice=1 if question.extra["pair"] == "bre-FR" else 0, **common)
        for question in asked
    ]
    (scored,) = score(asked, answers, resamples=20).settings
    assert (scored.accuracy.value, scored.macro.value) == (25, 50)
    assert {pair: cell.n for pair, cell in scored.breakdowns["pair"].items()} == {"jav-ID": 6, "bre-FR": 2}


def asked(path: Path, **request: Any) -> tuple[Path, list[dict[str, Any]]]:
    """Run a benchmark of the file with a model that always chooses option 2: the run folder, and what it was sent."""
    bodies: list[dict[str, Any]] = []

    def say(body: dict[str, Any]) -> str:
        bodies.append(body)
        return '{"answer": 2}'

    wanted = Request(dataset="cvqa", items=path, settings=("no_rag",), **request)
    with model_server(say) as url:
        folder = run(wanted, Settings(home=path.parent), nullcontext(url), silent)
    return folder, bodies


def test_every_question_is_asked_with_its_own_picture(tmp_path: Path) -> None:
    rows = [row(ID=f"{n}_0", image=shade(n), **{"Translated Question": f"Question {n}?"}) for n in range(6)]
    folder, bodies = asked(parquet(tmp_path / "test.parquet", *rows))
    shown: list[tuple[str, bytes]] = []
    for body in bodies:
        (message,) = body["messages"]
        parts = {part["type"]: part for part in message["content"]}
        encoded = parts["image_url"]["image_url"]["url"].partition("base64,")[2]
        shown.append((parts["text"]["text"], base64.b64decode(encoded)))
    assert len(shown) == 12
    for number in range(6):
        (data,) = (data for text, data in shown if f"Question {number}?" in text)
        assert data == shade(number)["bytes"]
    scores = json.loads((folder / "scores.json").read_text())["settings"][0]
    assert (scores["n"], scores["accuracy"]["value"], scores["accuracy"]["groups"]) == (12, 100, 6)
    assert "Javanese" in (folder / "report.html").read_text()


def test_m4rag_fault_01_every_answer_is_held_to_the_schema_of_its_options(tmp_path: Path) -> None:
    fewer = ["a", "b", "c"]
    rows = [row(ID="1_0"), row(ID="2_0", Options=fewer, **{"Translated Options": fewer})]
    _, bodies = asked(parquet(tmp_path / "test.parquet", *rows))
    for body in bodies:
        options = len(re.findall(r"^[1-9]\. ", body["messages"][0]["content"][-1]["text"], re.MULTILINE))
        assert body["response_format"]["json_schema"]["schema"] == answer_schema(options)
    assert len(bodies) == 4


def test_m4rag_fault_02_the_token_limit_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    path = parquet(tmp_path / "test.parquet", row())
    runs = {limit: asked(path, max_tokens=limit) for limit in (64, 4096)}
    for limit, (folder, bodies) in runs.items():
        assert {body["max_tokens"] for body in bodies} == {limit}
        assert RunPlan.read(folder).decoding["max_tokens"] == limit
    assert runs[64][0] != runs[4096][0], "another limit is another run"


def test_m4rag_fault_19_every_request_has_its_seed_and_nothing_is_drawn(tmp_path: Path) -> None:
    path = parquet(tmp_path / "test.parquet", row())
    folders = set()
    for seed in (0, 7):
        folder, bodies = asked(path, seed=seed)
        folders.add(folder)
        assert {(body["seed"], body["temperature"]) for body in bodies} == {(seed, 0.0)}
        assert RunPlan.read(folder).decoding["seed"] == seed
    assert len(folders) == 2, "another seed is another run"
