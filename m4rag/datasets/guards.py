"""What is known to go wrong in benchmark data, looked for before anything is scored with it.

A check looks at a whole column at once and returns one `Finding`. Errors make a score meaningless, so a dataset with
one is refused by everything that reads it; warnings are defects of the published data that a reader of the numbers
must know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from m4rag.datasets import cvqa
from m4rag.datasets.items import image_location
from m4rag.datasets.worldcuisines import NAME, PROMPT_TYPES
from m4rag.errors import BadData, UsageError
from m4rag.languages import WORLDCUISINES_VARIETIES, lookup

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Level = Literal["error", "warning", "ok"]

FULL_CELLS = {60_000: 500, 12_000: 100}
"""Rows of `test_large` and `test_small` to rows of each cell (variety and prompt type)."""

# Template variables that the generator left in the text: <CUISINE>, <CUISINE.acc>, bare LOCATION.
PLACEHOLDER = r"<[A-Z_]+(\.\w+)?>|\b(LOCATION|CUISINE)\b"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        level: `error`, `warning` or `ok`.
        check: What was looked for.
        count: Rows concerned.
        example: One of them, "" if there is none.
        meaning: What it means for the numbers, or what to do.
    """

    level: Level
    check: str
    count: int
    example: str
    meaning: str


Check = Callable[["pa.Table"], Finding]


def examine(items: pa.Table, dataset: str, folder: Path) -> list[Finding]:
    """All checks that apply to a dataset, worst first.

    Args:
        items: Table with the columns `m4rag.datasets.items.ITEMS`.
        dataset: Its name.
        folder: Where relative image paths start.
    """
    findings = [check(items) for check in (*ERRORS.get(dataset, GENERAL), *WARNINGS.get(dataset, ()))]
    findings += [duplicate_options(items), images_present(items, folder)]
    order = ("error", "warning", "ok")
    return sorted(findings, key=lambda finding: order.index(finding.level))


def refuse(items: pa.Table, dataset: str, where: Path | str) -> None:
    """Refuse a table that can't be scored.

    Raises:
        BadData: An error was found; names the file, the row and what to do.
    """
    for check in ERRORS.get(dataset, GENERAL):
        finding = check(items)
        if finding.level == "error":
            rows = f" ({finding.count} rows)" if finding.count > 1 else ""
            place = f"{where} {finding.example}".strip()
            raise BadData(f"{finding.check}{rows}", where=place, remedy=finding.meaning or None)


def some_rows(items: pa.Table) -> Finding:
    """There are questions at all."""
    level: Level = "ok" if len(items) else "error"
    return Finding(level, "rows" if len(items) else "no rows", len(items), "", "")


def language_present(items: pa.Table) -> Finding:
    """Every row has a language code."""
    import pyarrow.compute as pc

    return _found(
        items,
        pc.is_null(items["language"]),
        "error",
        "missing language codes",
        "The code of Hokkien is the string 'nan', which pandas reads as a missing value: write the file again with "
        "keep_default_na=False.",
    )


def language_known(items: pa.Table) -> Finding:
    """Every language code is one that `m4rag.languages` knows."""
    problems: dict[str, UsageError] = {}
    for code in _distinct(items["language"]):
        try:
            lookup(code)
        except UsageError as error:
            problems[code] = error
    first = next(iter(problems.values()), None)
    return _found(
        items,
        _among(items["language"], problems),
        "error",
        first.what if first else "unknown language codes",
        first.remedy or "" if first else "",
    )


def prompt_type_known(items: pa.Table) -> Finding:
    """Every prompt type is one of WorldCuisines'."""
    meaning = f"WorldCuisines has {', '.join(sorted(PROMPT_TYPES))}."
    return _found(items, ~_among(items["prompt_type"], PROMPT_TYPES), "error", "unknown prompt types", meaning)


def ids_unique(items: pa.Table) -> Finding:
    """No question id occurs twice."""
    import numpy as np
    import pyarrow.compute as pc

    ids = items["question_id"].combine_chunks()
    if len(pc.unique(ids)) == len(ids):
        doubled = np.zeros(len(ids), dtype=bool)
    else:
        first = pc.index_in(ids, value_set=ids).to_numpy(zero_copy_only=False)
        doubled = (first != np.arange(len(ids))) & _flags(ids.is_valid())
    return _found(items, doubled, "error", "doubled question ids", "Name each file once.")


def gold_in_range(items: pa.Table) -> Finding:
    """The gold index points at an option."""
    import numpy as np

    index, counts = _gold(items), _option_counts(items)
    return _found(
        items,
        (index < 0) | (index >= counts) | np.isnan(index),
        "error",
        "gold index out of range",
        "WorldCuisines' index of v1 and of the table layout starts at 1, that of v1.1 and CVQA's label at 0.",
    )


def gold_is_the_answer(items: pa.Table) -> Finding:
    """The option that the gold index points at is the answer text, where the file has that."""
    import numpy as np

    options = items["options"].combine_chunks()
    index, counts = _gold(items), _option_counts(items)
    rows = np.flatnonzero((index >= 0) & (index < counts) & ~_flags(items["answer"].is_null()))
    differs = np.zeros(len(items), dtype=bool)
    places = options.offsets.to_numpy()[rows] + index[rows].astype(np.int64)
    gold = options.values.to_numpy(zero_copy_only=False)[places]
    differs[rows] = gold != items["answer"].to_numpy()[rows]
    return _found(
        items,
        differs,
        "error",
        "gold option is not the answer text",
        "Is the gold index counted from 0 where the layout counts from 1?",
    )


def option_count(items: pa.Table) -> Finding:
    """There are between two and eight options."""
    counts = _option_counts(items)
    return _found(
        items,
        (counts < 2) | (counts > 8),
        "error",
        "not two to eight options",
        "WorldCuisines has five, in 45 of 1,500 dish questions four; CVQA has four.",
    )


def texts_present(items: pa.Table) -> Finding:
    """No question and no option is empty."""
    import numpy as np
    import pyarrow.compute as pc

    def blank(texts: pa.Array) -> np.ndarray:
        return _flags(pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), True))

    options = items["options"].combine_chunks()
    rows = np.zeros(len(items), dtype=bool)
    rows[options.value_parent_indices().to_numpy()[blank(options.flatten())]] = True
    return _found(
        items,
        rows | blank(items["question"].combine_chunks()),
        "error",
        "empty questions or options",
        "A model can't be asked it: correct the file.",
    )


def duplicate_options(items: pa.Table) -> Finding:
    """No question offers the same text twice."""
    import numpy as np

    options = items["options"].combine_chunks()
    codes = options.flatten().dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    rows = options.value_parent_indices().to_numpy().astype(np.int64)
    distinct = np.unique(rows * (codes.max(initial=0) + 1) + codes)
    counts = np.bincount(distinct // (codes.max(initial=0) + 1), minlength=len(items))
    return _found(
        items,
        counts < _option_counts(items),
        "warning",
        "two options with the same text",
        "Two numbers are right but only one scores. WorldCuisines as published has 16 a variety in origin questions "
        "and up to 21 a variety in dish questions.",
    )


def images_present(items: pa.Table, folder: Path) -> Finding:
    """Every question has an image: an address, a file that exists, or one inside the table."""
    outside = ~_flags(items["embedded"]) if "embedded" in items.column_names else ~_flags(items["image"].is_null())
    images = _distinct(items["image"].filter(outside))
    gone = [image for image in images if "://" not in image and not Path(image_location(image, folder)).is_file()]
    return _found(
        items,
        (outside & _among(items["image"], gone)) | _flags(items["image"].is_null()),
        "warning",
        "questions without an image",
        "They can only be asked with --images none.",
    )


def four_options(items: pa.Table) -> Finding:
    """Which questions have four options rather than five."""
    return _found(
        items,
        _option_counts(items) != 5,
        "warning",
        "not five options",
        "Guessing gives more than 20 % there; the random baseline counts it exactly.",
    )


def row_count(items: pa.Table) -> Finding:
    """The split is whole: 60,000 rows (`test_large`) or 12,000 (`test_small`)."""
    whole = len(items) in FULL_CELLS
    return Finding(
        "ok" if whole else "warning",
        "whole split",
        len(items),
        "",
        "" if whole else "test_large has 60,000 rows, test_small 12,000: this is a part or a mixture.",
    )


def cells_equal(items: pa.Table) -> Finding:
    """Every variety has as many questions of each prompt type as every other."""
    cells = (
        items.select(["language", "prompt_type"]).group_by(["language", "prompt_type"]).aggregate([([], "count_all")])
    )
    sizes = {(row["language"], row["prompt_type"]): row["count_all"] for row in cells.to_pylist()}
    wanted = FULL_CELLS.get(len(items), max(sizes.values(), default=0))
    off = {cell: size for cell, size in sizes.items() if size != wanted}
    example = ""
    if off:
        (language, prompt_type), size = next(iter(off.items()))
        example = f"{language}, prompt type {prompt_type}: {size}"
    return Finding(
        "warning" if off else "ok",
        f"cells (variety and prompt type) without {wanted} rows",
        len(off),
        example,
        "The row mean is not the mean over varieties: look at both." if off else "Row mean and macro mean agree.",
    )


def nan_intact(items: pa.Table) -> Finding:
    """Hokkien's code `nan` survived every tool that the file went through."""
    lost = set(_distinct(items["language"])) == set(WORLDCUISINES_VARIETIES) - {"nan"}
    return Finding(
        "error" if lost else "ok",
        "rows in written Hokkien (code nan)",
        int(_among(items["language"], ["nan"]).sum()),
        "",
        "All 29 other varieties are here: some tool took 'nan' for a missing value and dropped the rows."
        if lost
        else "",
    )


def cantonese_origin(items: pa.Table) -> Finding:
    """Cantonese origin questions are corrupt in the published data."""
    return _found(
        items,
        corrupt(items),
        "warning",
        "corrupt Cantonese origin questions",
        "Their country names are shifted in v1 (Myanmar reads Mysore): nobody can answer them. Report scores with and "
        "without.",
    )


def placeholders(items: pa.Table) -> Finding:
    """No question contains a template variable that was never filled in."""
    import pyarrow.compute as pc

    return _found(
        items,
        pc.match_substring_regex(items["question"], PLACEHOLDER),
        "warning",
        "unfilled placeholders in questions",
        "The question reads <CUISINE> or LOCATION where a name should stand; in the published data that is every "
        "Sardinian question with a context.",
    )


def labels_published(items: pa.Table) -> Finding:
    """The labels are there: where the answers are kept for a leaderboard, every one of them is -1."""
    return _found(
        items,
        _gold(items) == -1,
        "error",
        "labels withheld (-1)",
        "This release keeps its answers back (afaji/cvqa does): use one with labels, such as davidanugraha/cvqa.",
    )


def images_sound(items: pa.Table) -> Finding:
    """Every image that is here is an image."""
    import pyarrow as pa

    column = "image_problem"
    problems = items[column] if column in items.column_names else pa.nulls(len(items), pa.string())
    broken = _flags(problems.is_valid())
    first = next(iter(_distinct(problems)), "") if broken.any() else ""
    return _found(items, broken, "error", "questions whose image can't be shown", f"The first: {first}.")


def published_options(items: pa.Table) -> Finding:
    """CVQA asks for one of four options."""
    return _found(
        items,
        _option_counts(items) != 4,
        "warning",
        "not four options",
        "The published prompt and answer format say 1 to 4; the random baseline counts it exactly.",
    )


def category_known(items: pa.Table) -> Finding:
    """Every category is one of CVQA's ten."""
    return _found(
        items,
        ~_among(items["category"], cvqa.CATEGORIES),
        "warning",
        "categories that CVQA does not have",
        "Each becomes a row of its own in tables by category.",
    )


def published_rows(items: pa.Table) -> Finding:
    """The split is whole: 10,374 rows, each asked twice."""
    whole = len(items) == 2 * cvqa.ROWS
    meaning = f"The test split has {cvqa.ROWS:,} rows (an early commit 10,268), each asked twice: this is another part."
    return Finding("ok" if whole else "warning", "whole split", len(items), "", "" if whole else meaning)


def pair_rows(items: pa.Table) -> Finding:
    """Every language-country pair has as many rows as published, give or take the one that reading a figure costs."""
    counts = items.group_by("pair").aggregate([([], "count_all")]).to_pylist()
    found = {row["pair"]: row["count_all"] // 2 for row in counts}
    off = {pair: found.get(pair, 0) for pair, rows in cvqa.PAIR_ROWS.items() if abs(found.get(pair, 0) - rows) > 1}
    example = next((f"{pair}: {rows}, published {cvqa.PAIR_ROWS[pair]}" for pair, rows in off.items()), "")
    return Finding(
        "warning" if off else "ok",
        "pairs without their published number of rows",
        len(off),
        example,
        "Pairs weigh otherwise in the row mean than in published numbers: look at both means." if off else "",
    )


def shared_pictures(items: pa.Table) -> Finding:
    """No picture goes by two names, and no name stands for two pictures."""
    import numpy as np

    named = [qa_id.rpartition("_")[0] for qa_id in items["qa_id"].to_pylist()]
    known: dict[str, str] = {}
    doubled = [
        digest is not None and known.setdefault(name, digest) != digest
        for name, digest in zip(named, items["image_digest"].to_pylist(), strict=True)
    ]
    merged = np.array(named, dtype=object) != np.array(items["group"].to_pylist(), dtype=object)
    return _found(
        items,
        merged | np.array(doubled, dtype=bool),
        "warning",
        "pictures under several names, or names of several pictures",
        "They count as one picture in the intervals, which resample pictures.",
    )


def research_only(items: pa.Table) -> Finding:
    """Which pictures may be used for research only, or under no licence that is stated."""
    import pyarrow.compute as pc

    source, license_ = (pc.fill_null(items[name], "") for name in ("image_source", "license"))
    limited = pc.or_(
        pc.match_substring(source, "research_only"), pc.match_substring(license_, "research", ignore_case=True)
    )
    unstated = pc.equal(pc.utf8_trim_whitespace(license_), "")
    return _found(
        items,
        pc.or_(limited, unstated),
        "warning",
        "pictures for research only, or without a licence",
        "Do not publish them: reports embed the pictures of their examples.",
    )


def corrupt(items: pa.Table) -> np.ndarray:
    """Which rows are the corrupt Cantonese origin questions, shape (rows,)."""
    rows: np.ndarray = _among(items["language"], ["yue"]) & _among(items["prompt_type"], ["2"])
    return rows


GENERAL: Sequence[Check] = (
    some_rows,
    language_present,
    language_known,
    ids_unique,
    option_count,
    gold_in_range,
    gold_is_the_answer,
    texts_present,
)
"""What makes a score meaningless, in any dataset."""

ERRORS: dict[str, Sequence[Check]] = {
    NAME: (*GENERAL, prompt_type_known, nan_intact),
    cvqa.NAME: (some_rows, labels_published, *GENERAL[1:], images_sound),
}
WARNINGS: dict[str, Sequence[Check]] = {
    NAME: (row_count, cells_equal, four_options, cantonese_origin, placeholders),
    cvqa.NAME: (published_rows, pair_rows, published_options, category_known, shared_pictures, research_only),
}


def _found(items: pa.Table, rows: np.ndarray | pa.ChunkedArray, level: Level, check: str, meaning: str) -> Finding:
    """A finding over the rows where a mask is true."""
    import numpy as np

    places = np.flatnonzero(rows if isinstance(rows, np.ndarray) else _flags(rows))
    if not len(places):
        return Finding("ok", check, 0, "", "")
    first = int(places[0])
    question = items["question_id"][first].as_py()
    place = items["place"][first].as_py() if "place" in items.column_names else f"row {first}"
    return Finding(level, check, len(places), place + (f" ({question})" if question else ""), meaning)


def _option_counts(items: pa.Table) -> np.ndarray:
    import pyarrow.compute as pc

    counts: np.ndarray = pc.fill_null(pc.list_value_length(items["options"]), 0).to_numpy()
    return counts


def _gold(items: pa.Table) -> np.ndarray:
    """The 0-based gold index as floats, NaN where there is none."""
    index: np.ndarray = items["answer_index"].cast("float64").to_numpy()
    return index


def _distinct(column: pa.ChunkedArray) -> list[str]:
    """The distinct texts of a column."""
    import pyarrow.compute as pc

    texts: list[str] = pc.unique(column.drop_null()).to_pylist()
    return texts


def _among(column: pa.ChunkedArray, texts: Collection[str]) -> np.ndarray:
    """Which rows of a column of few distinct texts hold one of `texts`, shape (rows,); a missing one does not."""
    import numpy as np

    encoded = column.combine_chunks().dictionary_encode()
    wanted = [code for code, text in enumerate(encoded.dictionary.to_pylist()) if text in texts]
    found: np.ndarray = np.isin(encoded.indices.fill_null(-1).to_numpy(), wanted)
    return found


def _flags(mask: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Arrow booleans as numpy ones; missing is false."""
    import pyarrow.compute as pc

    flags: np.ndarray = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
    return flags
