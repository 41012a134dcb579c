"""Benchmark questions as one Arrow table, for what looks at whole columns: guards and the scoring of predictions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from m4rag.errors import BadData
from m4rag.manifests import MANIFEST, Manifest
from m4rag.schema import Question
from m4rag.shards import read_table

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BLOCK_BYTES = 2**20

_NUMBERED = re.compile(r"(?P<name>.+)-(?P<number>[0-9]{5})-of-(?P<total>[0-9]{5})\.(parquet|jsonl)")

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


def stored_items(table: pa.Table, details: Sequence[str] = ()) -> pa.Table:
    """`Question` rows as `m4rag.shards` stores them as a table with the columns `ITEMS`.

    Args:
        table: The rows.
        details: Further columns: fields of the rows or, as text, of their `extra`; what a row lacks is null.
    """
    import pyarrow as pa

    extra = [json.loads(text) for text in table["extra"].to_pylist()]
    columns = {name: table[name] for name in (*ITEMS, *details) if name in table.column_names}
    for name in {"qa_id", "food_id", "prompt_id", *details} - columns.keys():
        columns[name] = pa.array([row.get(name) for row in extra], pa.string())
    columns["answer"] = pa.nulls(len(table), pa.string())
    return pa.table({name: columns[name] for name in (*ITEMS, *details)})


def data_files(path: Path) -> list[Path]:
    """The file itself, the files a folder's manifest names, or the Parquet and JSONL files in a folder, in order.

    Raises:
        BadData: The folder holds none, or lacks one of a numbered series (`test-00003-of-00010.parquet`).
    """
    if not path.is_dir():
        return [path]
    if (path / MANIFEST).exists():
        return [path / file.name for file in Manifest.read(path).files]
    files = sorted(file for file in path.rglob("*") if file.suffix in (".parquet", ".jsonl"))
    if not files:
        raise BadData("no .parquet or .jsonl file in this folder", where=str(path))
    _need_whole_series(files)
    return files


def _need_whole_series(files: Sequence[Path]) -> None:
    """An interrupted download leaves a folder that reads well and is short of questions."""
    series: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        if numbered := _NUMBERED.fullmatch(file.name):
            key = (file.parent, numbered["name"], int(numbered["total"]))
            series.setdefault(key, set()).add(int(numbered["number"]))
    for (folder, name, total), numbers in series.items():
        gone = sorted(set(range(total)) - numbers)
        if gone:
            missing = f"{name}-{gone[0]:05d}-of-{total:05d}"
            raise BadData(
                f"{len(gone)} of {total} files are missing, first {missing}",
                where=str(folder),
                remedy="Download them again.",
            )


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


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file to read batch by batch; its columns are read page by page, never whole.

    Raises:
        BadData: No such file, or not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, buffer_size=BLOCK_BYTES, pre_buffer=False)
    except FileNotFoundError:
        raise BadData("no such file", where=str(path)) from None
    except (pa.ArrowInvalid, IsADirectoryError) as error:
        raise BadData(f"not a Parquet file ({str(error).splitlines()[0]})", where=str(path)) from None


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


def inside(image: str) -> str:
    """A relative path from a table of somebody else's, which may only lead down from its folder.

    Raises:
        BadData: It is absolute, leads up, or is no path at all.
    """
    parts = PurePosixPath(image.replace("\\", "/"))
    if not image or parts.is_absolute() or PureWindowsPath(image).drive or ".." in parts.parts or "\0" in image:
        raise BadData(f"the image path {image[:80]!r} leaves its folder", remedy="Use paths relative to the data.")
    return image


def need_inside(images: pa.ChunkedArray, ids: pa.ChunkedArray, path: Path) -> None:
    """Check a column of image addresses and relative paths.

    Args:
        images: The column; addresses (`https://...`) are left alone, since nothing fetches them.
        ids: Id of each row, for the message.
        path: The file, for the message.

    Raises:
        BadData: A path leaves its folder; names the row.
    """
    import pyarrow.compute as pc

    for image in pc.unique(images.drop_null()).to_pylist():
        if "://" in image:
            continue
        try:
            inside(image)
        except BadData as error:
            row = pc.index(images, image).as_py()
            raise BadData(error.what, where=f"{path} row {row} ({ids[row].as_py()})", remedy=error.remedy) from None


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
