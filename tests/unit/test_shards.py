"""Sharded tables: what a killed step leaves is continued, and equal rows give equal digests anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4rag.errors import BadData
from m4rag.manifests import Manifest, canonical, rows_digest
from m4rag.schema import Answer, Document, Question, Retrieved, Status
from m4rag.shards import map_folder, read_folder, read_rows, read_table, write_folder, write_rows

MADE_BY = Manifest(kind="documents", command="test")


def document(number: int) -> Document:
    return Document(
        document_id=f"d{number}",
        title="እንጀራ",
        text="ทดสอบ 🍜",
        language="nan",
        source="test",
        extra={"aliases": {"ja": "ラウォン"}, "rank": number},
    )


class Killed(Exception):
    """Stands for the kill in the middle of a step."""


def documents(count: int, *, until: int | None = None) -> Iterator[Document]:
    for number in range(count):
        if number == until:
            raise Killed
        yield document(number)


def test_rows_survive_the_round_trip_with_nested_and_free_form_fields(tmp_path: Path) -> None:
    answer = Answer(
        question_id="q",
        setting="oracle",
        model="m",
        status=Status.OUT_OF_RANGE,
        raw='{"answer": 9}',
        retrieved=(Retrieved(chunk_id="c", score=0.5),),
    )
    write_rows(tmp_path / "a.parquet", [answer], Answer)
    assert list(read_rows(tmp_path / "a.parquet", Answer)) == [answer]
    write_rows(tmp_path / "d.parquet", [document(1)], Document)
    assert list(read_rows(tmp_path / "d.parquet", Document)) == [document(1)]


def test_a_killed_step_keeps_its_finished_parts_and_ends_as_if_undisturbed(tmp_path: Path) -> None:
    whole = write_folder(tmp_path / "whole", Document, documents(25), MADE_BY, shard_rows=10)
    with pytest.raises(Killed):
        write_folder(tmp_path / "killed", Document, documents(25, until=23), MADE_BY, shard_rows=10)
    kept = tmp_path / "killed" / "part-00001.parquet"
    written = kept.stat().st_mtime_ns
    with pytest.raises(BadData, match="has not finished"):
        list(read_folder(tmp_path / "killed", Document))
    again = write_folder(tmp_path / "killed", Document, documents(25), MADE_BY, shard_rows=10)
    assert again == whole
    assert kept.stat().st_mtime_ns == written
    assert list(read_folder(tmp_path / "killed", Document)) == list(documents(25))


def test_a_finished_step_is_not_run_again(tmp_path: Path) -> None:
    first = write_folder(tmp_path, Document, documents(3), MADE_BY)
    assert write_folder(tmp_path, Document, documents(3, until=0), MADE_BY) == first


def test_another_configuration_replaces_what_was_there(tmp_path: Path) -> None:
    write_folder(tmp_path, Document, documents(25), MADE_BY, shard_rows=10)
    write_folder(tmp_path, Document, documents(5), MADE_BY.model_copy(update={"config": {"limit": 5}}), shard_rows=10)
    assert list(read_folder(tmp_path, Document)) == list(documents(5))
    assert [path.name for path in sorted(tmp_path.glob("part-*"))] == ["part-00000.parquet"]


def test_map_folder_computes_only_unfinished_parts(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", Document, documents(25), MADE_BY, shard_rows=10)
    made_by = Manifest(kind="documents", command="upper", inputs={"in": Manifest.read(tmp_path / "in").digest})
    seen: list[int] = []

    def upper(rows: list[Document], fail_at: int | None) -> list[Document]:
        if len(seen) == fail_at:
            raise Killed
        seen.append(len(rows))
        return [row.model_copy(update={"title": row.title * 2}) for row in rows]

    with pytest.raises(Killed):
        map_folder(tmp_path / "in", Document, tmp_path / "out", Document, lambda rows: upper(rows, 2), made_by)
    map_folder(tmp_path / "in", Document, tmp_path / "out", Document, lambda rows: upper(rows, None), made_by)
    assert seen == [10, 10, 5]
    assert [row.title for row in read_folder(tmp_path / "out", Document)] == ["እንጀራእንጀራ"] * 25


def test_digests_ignore_row_order_and_measurements_but_no_content() -> None:
    fast = Answer(question_id="q", setting="s", model="m", status=Status.OK, choice=1, raw="", latency_ms=1.0)
    slow = fast.model_copy(update={"latency_ms": 900.0})
    other = fast.model_copy(update={"choice": 2})
    assert rows_digest([fast, other]) == rows_digest([other, slow])
    assert rows_digest([fast]) != rows_digest([other])


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans()))
def test_canonical_json_does_not_depend_on_insertion_order(value: dict[str, object]) -> None:
    assert canonical(value) == canonical(dict(reversed(value.items())))


def test_not_a_number_has_no_digest() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"score": float("nan")})


def test_bad_files_say_what_where_and_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no such file"):
        read_table(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(BadData, match=r"text\.parquet: not a Parquet file"):
        read_table(tmp_path / "text.parquet")
    write_rows(tmp_path / "d.parquet", [document(1)], Document)
    with pytest.raises(BadData, match=r"no column 'options'.*It has: .*document_id"):
        read_table(tmp_path / "d.parquet", ["title", "options"])


def test_a_row_that_breaks_its_model_is_named(tmp_path: Path) -> None:
    question = Question(
        question_id="q", dataset="d", language="yo", question="?", options=("a", "b"), answer_index=0, group="g"
    )
    write_rows(tmp_path / "q.parquet", [question, question.model_copy(update={"options": ("a",)})], Question)
    with pytest.raises(BadData, match=r"q.parquet row 1: options"):
        list(read_rows(tmp_path / "q.parquet", Question))


def test_a_folder_whose_part_was_cut_short_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, Document, documents(3), MADE_BY)
    write_rows(tmp_path / "part-00000.parquet", [document(0)], Document)
    with pytest.raises(BadData, match="1 rows where the manifest says 3"):
        list(read_folder(tmp_path, Document))
