"""Benchmark questions as one Arrow table, for what looks at whole columns: guards and the scoring of predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag.errors import BadData
from m4rag.manifests import MANIFEST, Manifest
from m4rag.schema import Question
from m4rag.shards import read_table

if TYPE_CHECKING:
    import pyarrow as pa

ITEMS = (
    "question_id",
    "qa_id",
    "language",
    "food_id",
    "prompt_id",
    "prompt_type",
    "question",
    "options",
    "answer_index",
    "answer",
    "image",
    "group",
)
"""The table's columns: strings, except `options` (list of strings) and `answer_index` (0-based). `group` is the image
id; what a dataset does not have is null."""


def items_table(questions: Sequence[Question]) -> pa.Table:
    """Questions as a table with the columns `ITEMS`."""
    import pyarrow as pa

    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(question, name) for question in questions], pa.string())
        for name in ("question_id", "language", "prompt_type", "question", "image", "group")
    }
    for name in ("qa_id", "food_id", "prompt_id"):
        columns[name] = pa.array([question.extra.get(name) for question in questions], pa.string())
    columns["options"] = pa.array([question.options for question in questions], pa.list_(pa.string()))
    columns["answer_index"] = pa.array([question.answer_index for question in questions], pa.int64())
    columns["answer"] = pa.nulls(len(questions), pa.string())
    return pa.table({name: columns[name] for name in ITEMS})


def stored_items(table: pa.Table) -> pa.Table:
    """`Question` rows as `m4rag.shards` stores them as a table with the columns `ITEMS`."""
    import pyarrow as pa

    extra = [json.loads(text) for text in table["extra"].to_pylist()]
    columns = {name: table[name] for name in ITEMS if name in table.column_names}
    for name in ("qa_id", "food_id", "prompt_id"):
        columns[name] = pa.array([row.get(name) for row in extra], pa.string())
    columns["answer"] = pa.nulls(len(table), pa.string())
    return pa.table({name: columns[name] for name in ITEMS})


def data_files(path: Path) -> list[Path]:
    """The file itself, the files a folder's manifest names, or the Parquet and JSONL files in a folder, in order.

    Raises:
        BadData: The folder holds none.
    """
    if not path.is_dir():
        return [path]
    if (path / MANIFEST).exists():
        return [path / file.name for file in Manifest.read(path).files]
    files = sorted(file for file in path.rglob("*") if file.suffix in (".parquet", ".jsonl"))
    if not files:
        raise BadData("no .parquet or .jsonl file in this folder", where=str(path))
    return files


def read_columns(path: Path) -> pa.Table:
    """A Parquet, JSONL or CSV file as it is. Every cell of a CSV is text: a dish may well be called Nan or Null.

    Raises:
        BadData: No such file, not of the format that its name promises, or a format that is not known.
    """
    import pyarrow as pa

    readers = {".parquet": read_table, ".jsonl": _read_jsonl, ".json": _read_jsonl, ".csv": _read_csv}
    if not path.exists():
        raise BadData("no such file", where=str(path))
    if path.suffix not in readers:
        raise BadData(f"format {path.suffix!r} is not known", where=str(path), remedy="Use .parquet, .jsonl or .csv.")
    try:
        return readers[path.suffix](path)
    except pa.ArrowInvalid as error:
        raise BadData(f"not a {path.suffix} table ({str(error).splitlines()[0]})", where=str(path)) from None


def need_columns(table: pa.Table, columns: Sequence[str], path: Path, what: str) -> None:
    """Check that a table has columns.

    Raises:
        BadData: One is missing; names it and those that are there.
    """
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise BadData(
            f"no column {', '.join(map(repr, missing))}, as {what} has",
            where=str(path),
            remedy=f"It has: {', '.join(sorted(table.column_names))}.",
        )


def as_text(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    """A column of strings or integers as strings.

    Raises:
        BadData: It is of another type. Fractions are refused because NaN would become the text `nan`, which is the
            code of Hokkien.
    """
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    accepted = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_null)
    if not any(is_kind(kind) for is_kind in accepted):
        raise BadData(
            f"the column holds {kind}, not text",
            where=f"{path}, {name}",
            remedy="If it went through pandas, read with keep_default_na=False: the language code 'nan' is not NaN.",
        )
    return column.cast(pa.string())


def image_location(image: str, folder: Path) -> str:
    """An image address as it is; a relative path seen from `folder` or from its folder `images`."""
    if "://" in image or Path(image).is_absolute():
        return image
    direct = folder / image
    return str(direct if direct.exists() else folder / "images" / image)


def _read_jsonl(path: Path) -> pa.Table:
    import pyarrow.json

    return pyarrow.json.read_json(path)


def _read_csv(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    parse = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(path, parse_options=parse) as reader:
        columns = reader.schema.names
    text = csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False)
    return csv.read_csv(path, parse_options=parse, convert_options=text)
