"""CVQA: multiple-choice questions about pictures from 39 language-country pairs, each asked in English and natively.

Published as Parquet with the columns `COLUMNS` and the pictures in one of two ways:

    image         a struct of the image's bytes and a path; the path is never used
    image_path    the path of a file, relative to the folder of images; the file must be fetched by hand

Every row becomes two questions, `<ID>-en` from the translation and `<ID>-local` in the language of its pair, as in
M4-RAG. A row's `ID` is `<picture>_<number>`.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m4rag.datasets.embedded import check, check_file, keep
from m4rag.datasets.items import ITEMS, data_files, image_location, inside, need_columns, open_parquet
from m4rag.errors import BadData, UsageError
from m4rag.languages import cvqa_pair
from m4rag.schema import Question

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

NAME = "cvqa"
ROWS = 10_374
"""Rows of the whole test split; an early commit has 10,268."""

COLUMNS = (
    "ID",
    "Subset",
    "Question",
    "Translated Question",
    "Options",
    "Translated Options",
    "Label",
    "Category",
    "Image Type",
    "Image Source",
    "License",
)
EMBEDDED, FILE = "image", "image_path"

PROMPT_TYPES = {"english": "in English", "local": "in the language of the pair"}
"""Prompt type to what it means, in the order of a row's two questions."""

CATEGORIES = (
    "Brands / products / companies",
    "Cooking and food",
    "Geography / buildings / landmarks",
    "Objects / materials / clothing",
    "People and everyday life",
    "Plants and animal",
    "Public Figure and pop culture",
    "Sports and recreation",
    "Traditions / art / history",
    "Vehicles and Transportation",
)

# fmt: off
PAIR_ROWS = {
    "ind-ID": 412, "msa-MY": 315, "mon-MN": 312, "zho-CN": 311, "jav-ID": 297, "kor-KR": 290, "ben-IN": 286,
    "min-ID": 251, "sin-LK": 225, "urd-IN": 220, "urd-PK": 216, "tam-IN": 214, "zho-SG": 212, "fil-PH": 203,
    "jpn-JP": 203, "mar-IN": 202, "hin-IN": 201, "sun-ID": 200, "tel-IN": 200,
    "bre-FR": 405, "bul-BG": 371, "gle-IE": 326, "spa-ES": 318, "ron-RO": 302, "nor-NO": 299, "rus-RU": 200,
    "spa-EC": 362, "spa-MX": 323, "spa-UY": 315, "por-BR": 284, "spa-AR": 265, "spa-CO": 241, "spa-CL": 234,
    "swa-KE": 273, "kin-RW": 235, "amh-ET": 234, "orm-ET": 214, "arz-EG": 203, "ibo-NG": 200,
}
# fmt: on
"""Rows of each pair, read off the authors' figure: right to about one, and they add up to `ROWS`."""

DETAILS = ("category", "pair", "license", "image_type", "image_source", "image_digest")
"""What a question of CVQA has besides `ITEMS`; all but the category are in its `extra`."""

BATCH_ROWS = 16
"""Rows whose pictures are decoded at once; besides them one page of the file is in memory, a row group at most."""


@dataclass(frozen=True)
class Picture:
    """The picture of one row.

    Attributes:
        image: Where it is: its name below a folder of images for embedded bytes, else its path; None without one.
        digest: SHA-256 of its bytes; None if they are not here or no image.
        problem: Why it can't be shown; None if it can, or if its file is only missing.
    """

    image: str | None
    digest: str | None
    problem: str | None


def read_items(path: Path, root: Path) -> pa.Table:
    """Read the published Parquet as a table of two rows a question; nothing is dropped, no picture is written.

    Pictures are read a few rows at a time, checked and digested; memory is bounded by the file's row groups (published
    files have some hundred rows in each), not by its size. Rows about one picture are one group: those whose ids
    name the same picture, and those whose pictures are the same bytes under several names.

    Args:
        path: A Parquet file or a folder of them.
        root: The folder that image paths are relative to, for the layout with files.

    Returns:
        A table with the columns `ITEMS`, `DETAILS`, and `embedded` (bool: the picture is inside the file),
        `image_problem` (why it can't be shown, null if it can) and `place` (file and row, for messages).

    Raises:
        BadData: No such file, a missing column or one of the wrong type, an image path that leaves its folder, or a
            row whose pair, picture or options can't be made out; names the row.
    """
    import pyarrow as pa

    files = data_files(path)
    rows = [row for file in files for row in _file_rows(file, root, len(files) > 1)]
    texts = [name for name in (*ITEMS, *DETAILS, "image_problem", "place") if name not in ("options", "answer_index")]
    columns: dict[str, pa.Array] = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in texts}
    columns["options"] = pa.array([row["options"] for row in rows], pa.list_(pa.string()))
    columns["answer_index"] = pa.array([row["answer_index"] for row in rows], pa.int64())
    columns["embedded"] = pa.array([row["embedded"] for row in rows], pa.bool_())
    names = [row["group"] for row in rows]
    columns["group"] = pa.array(picture_groups(names, [row["image_digest"] for row in rows]), pa.string())
    return pa.table({name: columns[name] for name in (*ITEMS, *DETAILS, "embedded", "image_problem", "place")})


def questions(items: pa.Table, folder: Path) -> list[Question]:
    """The rows of a checked table (`m4rag.datasets.guards.refuse`) as questions.

    Args:
        items: A table of `read_items`.
        folder: The folder of images that `extract` writes embedded pictures to.
    """
    return [
        Question(
            question_id=row["question_id"],
            dataset=NAME,
            language=row["language"],
            question=row["question"],
            options=tuple(row["options"]),
            answer_index=row["answer_index"],
            category=row["category"] or "",
            prompt_type=row["prompt_type"],
            image=str(folder / row["image"]) if row["embedded"] else row["image"],
            group=row["group"],
            extra={"qa_id": row["qa_id"], **{name: row[name] for name in DETAILS if name != "category"}},
        )
        for row in items.to_pylist()
    ]


def extract(path: Path, wanted: Collection[Question], folder: Path) -> None:
    """Write the embedded pictures of questions as files, each once; what the folder has is not written again.

    Args:
        path: What the questions were read from.
        wanted: The questions, as `questions` returned them.
        folder: The folder of images.

    Raises:
        BadData: The files changed since the questions were read.
    """
    missing = {Path(q.image) for q in wanted if q.image and Path(q.image).is_relative_to(folder)}
    missing = {image for image in missing if not image.exists()}
    if not missing:
        return
    for file in data_files(path):
        opened = open_parquet(file)
        if EMBEDDED not in opened.schema_arrow.names:
            continue
        for row in _batched(opened, [EMBEDDED], file):
            data = row[EMBEDDED]["bytes"] if row[EMBEDDED] else None
            name = check(data).name
            if data is not None and name is not None and folder / name in missing:
                keep(data, name, folder)
                missing.discard(folder / name)
        if not missing:
            return
    raise BadData(f"{len(missing)} pictures are gone since the questions were read", where=str(path))


def picture_groups(names: Iterable[str], digests: Iterable[str | None]) -> list[str]:
    """One name for all rows that show one picture, however it is called.

    Args:
        names: The name that each row's id gives its picture.
        digests: SHA-256 of each row's picture, None where it is not known.

    Returns:
        For each row the first (in alphabetical order) of all names that its picture goes by, so that the result does
        not depend on the order of the rows.
    """
    parents: dict[str, str] = {}

    def root(node: str) -> str:
        while parents.setdefault(node, node) != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    rows = [f"name {name}" for name in names]
    for row, digest in zip(rows, digests, strict=True):
        if digest is not None:
            parents[root(f"digest {digest}")] = root(row)
    members: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        members[root(row)].add(row)
    return [min(members[root(row)]).removeprefix("name ") for row in rows]


def parse_subset(text: str) -> str:
    """The pair that a `Subset` cell names: the text of a Python tuple, which is read as data and never run.

    Returns:
        Code of the pair, one of `m4rag.languages.CVQA_PAIRS`.

    Raises:
        ValueError: It is not the text of a tuple of two strings.
        UsageError: CVQA has no such pair.
    """
    try:
        pair = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pair = None
    if not (isinstance(pair, tuple) and [type(part) for part in pair] == [str, str]):
        raise ValueError(f"Subset is not a tuple of language and country: {text[:60]!r}")
    return cvqa_pair(*pair)


def picture_name(identity: str) -> str:
    """The picture that an `ID` names: all before its last `_` and number.

    Raises:
        ValueError: The id is not `<picture>_<number>`.
    """
    name, _, number = identity.rpartition("_")
    if not name or not (number.isascii() and number.isdigit()):
        raise ValueError(f"ID {identity[:60]!r} is not <picture>_<number>, so what shares a picture is unknown")
    return name


def _file_rows(file: Path, root: Path, several: bool) -> Iterator[dict[str, Any]]:
    opened = open_parquet(file)
    schema = opened.schema_arrow
    need_columns(schema.empty_table(), COLUMNS, file, "CVQA")
    pictures = next((name for name in (EMBEDDED, FILE) if name in schema.names), None)
    if pictures is None:
        need_columns(schema.empty_table(), [EMBEDDED], file, "CVQA")
    _check_types(schema, str(pictures), file)
    for number, row in enumerate(_batched(opened, [*COLUMNS, str(pictures)], file)):
        where = f"{file} row {number}" + (f" ({row['ID']})" if row["ID"] else "")
        try:
            pair, group = _required(row)
            picture = _embedded(row) if pictures == EMBEDDED else _on_disk(row, root)
        except (ValueError, UsageError, BadData) as error:
            what, remedy = (error.what, error.remedy) if isinstance(error, UsageError | BadData) else (str(error), None)
            raise BadData(what, where=where, remedy=remedy) from None
        place = f"{file.name} row {number}" if several else f"row {number}"
        yield from _two_questions(row, pair, group, picture, pictures == EMBEDDED, place)


def _check_types(schema: pa.Schema, pictures: str, file: Path) -> None:
    import pyarrow as pa

    def text(kind: pa.DataType) -> bool:
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    def listed(kind: pa.DataType) -> bool:
        return bool((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and text(kind.value_type))

    def embedded(kind: pa.DataType) -> bool:
        return bool(pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)

    expected = dict.fromkeys((*COLUMNS, FILE), (text, "text"))
    expected |= dict.fromkeys(("Options", "Translated Options"), (listed, "lists of text"))
    expected |= {"Label": (pa.types.is_integer, "integers"), EMBEDDED: (embedded, "structs with bytes")}
    for name in (*COLUMNS, pictures):
        fits, wanted = expected[name]
        kind = schema.field(name).type
        # A column that is empty throughout has no type of its own.
        if not (fits(kind) or pa.types.is_null(kind)):
            raise BadData(f"the column holds {kind}, not {wanted}", where=f"{file}, {name}")


def _batched(opened: pq.ParquetFile, columns: list[str], file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    batches = opened.iter_batches(batch_size=BATCH_ROWS, columns=columns)
    done = 0
    while True:
        try:
            rows = next(batches).to_pylist()
        except StopIteration:
            return
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise BadData(f"damaged ({str(error).splitlines()[0]})", where=f"{file} row {done} or later") from None
        yield from rows
        done += len(rows)


def _required(row: dict[str, Any]) -> tuple[str, str]:
    """The pair of a row and the name of its picture.

    Raises:
        ValueError: A cell without which there is no question is missing or senseless.
        UsageError: CVQA has no such pair.
    """
    missing = [name for name in ("ID", "Subset", "Options", "Translated Options", "Label") if row[name] is None]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    if len(row["Options"]) != len(row["Translated Options"]):
        raise ValueError(
            f"{len(row['Options'])} options and {len(row['Translated Options'])} translated ones, for one label"
        )
    return parse_subset(row["Subset"]), picture_name(row["ID"])


def _embedded(row: dict[str, Any]) -> Picture:
    checked = check(row[EMBEDDED]["bytes"] if row[EMBEDDED] else None)
    return Picture(checked.name, checked.digest, checked.problem)


def _on_disk(row: dict[str, Any], root: Path) -> Picture:
    """The picture file of a row, digested if it is there."""
    if row[FILE] is None:
        return Picture(None, None, "no image path")
    path = Path(image_location(inside(row[FILE]), root))
    if not path.is_file():
        return Picture(str(path), None, None)
    checked = check_file(path)
    return Picture(str(path), checked.digest, checked.problem)


def _two_questions(
    row: dict[str, Any], pair: str, group: str, picture: Picture, embedded: bool, place: str
) -> Iterator[dict[str, Any]]:
    common = {
        "qa_id": row["ID"],
        "answer_index": row["Label"],
        "image": picture.image,
        "group": group,
        "category": row["Category"],
        "pair": pair,
        "license": row["License"],
        "image_type": row["Image Type"],
        "image_source": row["Image Source"],
        "image_digest": picture.digest,
        "image_problem": picture.problem,
        "embedded": embedded,
        "place": place,
    }
    for prompt_type, suffix, language, prefix in (("english", "en", "en", "Translated "), ("local", "local", pair, "")):
        yield common | {
            "question_id": f"{row['ID']}-{suffix}",
            "language": language,
            "prompt_type": prompt_type,
            "question": row[f"{prefix}Question"],
            "options": row[f"{prefix}Options"],
        }
