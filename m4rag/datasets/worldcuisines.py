"""WorldCuisines: multiple-choice questions about dishes in 30 varieties, and its knowledge base of dishes.

Three layouts of the questions are in circulation; which one a file has is seen from its columns:

    v1      JSONL as published first: the options stand only inside the prompt text, the gold index is 1-based
    v1.1    columns with an option list, the gold index (`mcq_answer_index`) is 0-based, images are files
    table   Parquet with an option list, the gold index (`answer_index`) is 1-based, images are addresses

All become one table (`m4rag.datasets.items.ITEMS`) with a 0-based gold index, in the row order of the file.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m4rag.datasets.items import (
    ITEMS,
    as_text,
    data_files,
    image_location,
    need_columns,
    need_inside,
    read_columns,
)
from m4rag.errors import BadData
from m4rag.schema import Document, Question

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "worldcuisines"
KNOWLEDGE_BASE = "worldcuisines-kb"
LICENSE = "CC-BY-SA-4.0"

PROMPT_TYPES = {"1": "no context", "3": "true context", "4": "misleading context", "2": "origin"}
"""Prompt type to what the question gives away; the order is that of the published tables."""

TASKS = {"1": "dish name", "3": "dish name", "4": "dish name", "2": "origin"}
"""Prompt type to task, the category of breakdowns."""


@dataclass(frozen=True)
class Layout:
    """One way the questions are published.

    Attributes:
        name: Name for messages.
        columns: Our column to the file's.
        index_base: What the first option's index is in the file.
    """

    name: str
    columns: Mapping[str, str]
    index_base: int


_COMMON = {"qa_id": "qa_id", "language": "lang", "food_id": "food_id", "prompt_type": "prompt_type", "answer": "answer"}
_LISTED = _COMMON | {"question": "question", "options": "options"}
_PROMPTED = _COMMON | {"prompt": "multi_choice_prompt"}

LAYOUTS = (
    Layout("table", _LISTED | {"answer_index": "answer_index", "image": "image_url"}, 1),
    Layout("v1.1", _LISTED | {"answer_index": "mcq_answer_index", "image": "image_path"}, 0),
    Layout("v1", _PROMPTED | {"answer_index": "multi_choice_answer", "image": "image_url"}, 1),
)

_PROMPT = re.compile(r"(?P<question>.*?)\n1\. (?P<options>.*)\n\n[^\n]*", re.DOTALL)


def read_items(path: Path) -> pa.Table:
    """Read questions of any layout as one table with the columns `ITEMS`; nothing is dropped or judged.

    A table of several files has a column `place` as well: file and row, for messages.

    Args:
        path: A Parquet or JSONL file, or a folder of them (v1 is one file for each variety and task).

    Raises:
        BadData: No such file, a format or layout that is not known (names the missing column), a prompt whose options
            can't be found, a column of the wrong type, or an image path that leaves its folder.
    """
    import pyarrow as pa

    files = data_files(path)
    tables = [_normalise(read_columns(file), file) for file in files]
    if len(files) > 1:
        tables = [_placed(table, file) for table, file in zip(tables, files, strict=True)]
    return pa.concat_tables(tables).combine_chunks()


def questions(items: pa.Table, folder: Path) -> list[Question]:
    """The rows of a checked table (`m4rag.datasets.guards.refuse`) as questions.

    Args:
        items: A table with the columns `ITEMS`.
        folder: Where relative image paths start.
    """
    return [
        Question(
            question_id=row["question_id"],
            dataset=NAME,
            language=row["language"],
            question=row["question"],
            options=tuple(row["options"]),
            answer_index=row["answer_index"],
            category=TASKS[row["prompt_type"]],
            prompt_type=row["prompt_type"],
            image=image_location(row["image"], folder) if row["image"] else None,
            group=row["group"],
            gold=(f"{KNOWLEDGE_BASE}:{row['food_id']}",),
            extra={name: row[name] for name in ("qa_id", "food_id", "prompt_id")},
        )
        for row in items.to_pylist()
    ]


def parse_prompt(prompt: str) -> tuple[str, list[str]]:
    r"""Take a v1 prompt apart.

    Its layout is `<question>\n1. <option>\n2. <option>...\n\n<instruction>`; the question itself may have several
    lines.

    Returns:
        The question and its options.

    Raises:
        ValueError: It is not of this layout; says what is wrong.
    """
    found = _PROMPT.fullmatch(prompt)
    if found is None:
        raise ValueError("no numbered options before the instruction")
    parts = re.split(r"\n(\d+)\. ", found["options"])
    numbers = [int(number) for number in parts[1::2]]
    if numbers != list(range(2, len(numbers) + 2)):
        raise ValueError(f"the options are numbered {', '.join(map(str, [1, *numbers]))}")
    return found["question"], parts[0::2]


def documents(path: Path) -> Iterator[Document]:
    """The dishes of a knowledge base as documents, in the order of the file.

    Args:
        path: CSV, Parquet or JSONL with the columns `food_id`, `Name`, `Text Description` and, where there are any,
            `Alias`, `Cuisines`, `Countries`, `Coarse-grained categories`, `Fine-grained categories`.

    Yields:
        English documents; `extra` holds `aliases` (language code to name), `cuisines`, `countries`, `categories`. A
        dish without a description has an empty text.

    Raises:
        BadData: The file is unreadable or lacks a column, or a cell is not what its column promises.
    """
    required = ["food_id", "Name", "Text Description"]
    listed = ["Cuisines", "Countries", "Coarse-grained categories", "Fine-grained categories"]
    table = read_columns(path)
    need_columns(table, required, path, "the knowledge base")
    table = table.select([name for name in (*required, *listed, "Alias") if name in table.column_names])
    for number, row in enumerate(table.to_pylist()):
        where = f"{path} row {number}"
        if not row["Name"]:
            raise BadData("a dish without a name", where=where)
        cells = {name: _list(row.get(name), f"{where}, {name}") for name in listed}
        yield Document(
            document_id=f"{KNOWLEDGE_BASE}:{row['food_id']}",
            title=row["Name"],
            text=row["Text Description"] or "",
            language="en",
            source=KNOWLEDGE_BASE,
            license=LICENSE,
            extra={
                "aliases": _aliases(row.get("Alias"), f"{where}, Alias"),
                "cuisines": cells["Cuisines"],
                "countries": cells["Countries"],
                "categories": list(
                    dict.fromkeys(cells["Coarse-grained categories"] + cells["Fine-grained categories"])
                ),
            },
        )


def _normalise(table: pa.Table, path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    present = set(table.column_names)
    layout = min(LAYOUTS, key=lambda layout: len(set(layout.columns.values()) - present))
    need_columns(table, list(layout.columns.values()), path, f"WorldCuisines in layout {layout.name}")
    columns = {ours: table[theirs] for ours, theirs in layout.columns.items()}
    columns["prompt_id"] = table["prompt_id"] if "prompt_id" in present else pa.chunked_array([pa.nulls(len(table))])
    for ours in columns.keys() - {"options", "answer_index"}:
        columns[ours] = as_text(columns[ours], layout.columns.get(ours, ours), path)
    columns["question_id"] = question_ids(columns["qa_id"], columns["language"])
    columns["group"] = pc.coalesce(columns["image"], columns["qa_id"])
    need_inside(columns["image"], columns["question_id"], path)
    if "prompt" in columns:
        columns |= _take_apart(columns.pop("prompt"), columns["question_id"], path)
    index = columns["answer_index"]
    if not pa.types.is_integer(index.type):
        where = f"{path}, {layout.columns['answer_index']}"
        raise BadData(f"the gold index is {index.type}, not an integer", where=where)
    columns["answer_index"] = pc.subtract(index.cast(pa.int64()), layout.index_base)
    columns["options"] = columns["options"].cast(pa.list_(pa.string()))
    return pa.table({name: columns[name] for name in ITEMS})


def _placed(table: pa.Table, file: Path) -> pa.Table:
    import pyarrow as pa

    return table.append_column("place", pa.array([f"{file.name} row {row}" for row in range(len(table))], pa.string()))


def question_ids(qa_id: pa.ChunkedArray, language: pa.ChunkedArray) -> pa.ChunkedArray:
    """`<qa_id>-<language>`; the id of a row without a language is missing too."""
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(qa_id, language, "-")


def _take_apart(prompts: pa.ChunkedArray, ids: pa.ChunkedArray, path: Path) -> dict[str, pa.Array]:
    import pyarrow as pa

    stems, options = [], []
    for number, prompt in enumerate(prompts.to_pylist()):
        try:
            stem, listed = parse_prompt(prompt or "")
        except ValueError as error:
            where = f"{path} row {number} ({ids[number].as_py()}), multi_choice_prompt"
            raise BadData(str(error), where=where) from None
        stems.append(stem)
        options.append(listed)
    return {"question": pa.array(stems, pa.string()), "options": pa.array(options, pa.list_(pa.string()))}


def _list(cell: Any, where: str) -> list[str]:
    """A cell that holds a list, or JSON or Python text of one."""
    value = cell
    if isinstance(cell, str):
        try:
            value = ast.literal_eval(cell) if cell.startswith("['") else json.loads(cell or "[]")
        except (json.JSONDecodeError, ValueError, SyntaxError):
            value = None
    elif cell is None:
        value = []
    if not isinstance(value, list):
        raise BadData(f"not a list: {str(cell)[:40]!r}", where=where)
    return [str(entry) for entry in value]


def _aliases(cell: Any, where: str) -> dict[str, str]:
    """`{"ja - Japanese": "..."}` as `{"ja": "..."}`; the language's name is in whatever language its author read."""
    try:
        value = json.loads(cell or "{}") if isinstance(cell, str) else cell or {}
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise BadData(f"not a JSON object of language to name: {str(cell)[:40]!r}", where=where)
    aliases: dict[str, str] = {}
    for key, name in value.items():
        code = key.partition(" - ")[0]
        # Parquet gives every row all the keys of the column, empty where the row has none.
        if name is not None and aliases.setdefault(code, name) != name:
            raise BadData(f"two names in language {code!r}", where=where)
    return aliases
