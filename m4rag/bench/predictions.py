"""Scoring a file of predictions that some other program made: free text in, the published table out.

Everything here works on columns: 60,000 predictions are read, parsed and scored, intervals included, in about a second.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m4rag.bench.scoring import PAIR, macro_estimate, majority_baseline, random_baseline
from m4rag.bench.statistics import (
    ALL,
    RESAMPLES,
    Estimate,
    Partition,
    Sums,
    everything,
    group_sums,
    partition,
    resampled_means,
)
from m4rag.datasets import load_items
from m4rag.datasets.guards import corrupt, refuse
from m4rag.datasets.items import as_text, need_columns, read_columns
from m4rag.datasets.worldcuisines import question_ids
from m4rag.errors import BadData, UsageError
from m4rag.languages import lookup
from m4rag.schema import Status
from m4rag.vlm import parsing

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Parser = Callable[[str, Sequence[str]], int | None]
"""`parser(text, options)`: the number of the option chosen, counted from 1 and not yet checked against the options;
None if the text names none."""


@dataclass(frozen=True)
class PredictionScores:
    """Scores of one file of predictions.

    Attributes:
        dataset: Dataset name.
        parser: Rules that read the predictions.
        n: Questions; those without a prediction count as wrong.
        accuracy: Share of right answers over all questions.
        macro: Mean over varieties; for CVQA over its pairs, in English too.
        macro_by_prompt_type: Prompt type to mean over varieties.
        by_variety: Prompt type to variety (for CVQA: pair) to accuracy.
        invalid: Status to questions, for every status but `ok`.
        baselines: `random`, `majority` and, never known from predictions, `text_only`.
        without_corrupt: Accuracy without the questions that the published data spoils (Cantonese origin questions);
            None if there are none.
    """

    dataset: str
    parser: str
    n: int
    accuracy: Estimate
    macro: Estimate
    macro_by_prompt_type: dict[str, Estimate]
    by_variety: dict[str, dict[str, Estimate]]
    invalid: dict[str, int]
    baselines: dict[str, Estimate | None]
    without_corrupt: Estimate | None

    def payload(self) -> dict[str, Any]:
        """As JSON values: percentages with two decimals, intervals apart under `intervals`."""
        return {
            "dataset": self.dataset,
            "parser": self.parser,
            "n": self.n,
            **self._numbers(lambda estimate: round(estimate.value, 2)),
            "invalid": self.invalid,
            "intervals": self._numbers(lambda estimate: [round(estimate.low, 2), round(estimate.high, 2)]),
        }

    def _numbers(self, show: Callable[[Estimate], Any]) -> dict[str, Any]:
        return {
            "accuracy": show(self.accuracy),
            "macro": show(self.macro),
            "by_prompt_type": {
                kind: {
                    "macro": show(self.macro_by_prompt_type[kind]),
                    "by_variety": {variety: show(estimate) for variety, estimate in cells.items()},
                }
                for kind, cells in self.by_variety.items()
            },
            "accuracy_without_corrupt": show(self.without_corrupt) if self.without_corrupt else None,
            "baselines": {name: show(estimate) if estimate else None for name, estimate in self.baselines.items()},
        }


def score_predictions(
    dataset: str,
    items: Path | None,
    predictions: Path,
    parser: str = "published",
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PredictionScores:
    """Score predictions against the questions they answer.

    Args:
        dataset: Dataset name.
        items: Where its questions are read from, None for datasets inside the package.
        predictions: Parquet, JSONL or CSV with `qa_id`, `lang`, `prediction`, or with `question_id`, `prediction`.
        parser: A name in `PARSERS`.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        UsageError: Unknown dataset or parser.
        BadData: Either file breaks its contract, or a prediction is doubled or belongs to no question.
    """
    import pyarrow.compute as pc

    read = read_choices(dataset, items, predictions, parser)
    table, status, right = read.items, read.status, read.right.astype(float)
    gold = table["answer_index"].to_numpy()
    counts = pc.list_value_length(table["options"]).to_numpy()
    groups = group_numbers(table["group"])
    spoiled = corrupt(table)
    sound = None
    if spoiled.any() and not spoiled.all():
        sound = _accuracy(right[~spoiled], groups[~spoiled], resamples, seed)
    return PredictionScores(
        dataset=dataset,
        parser=parser,
        n=len(gold),
        **_accuracies(right, groups, table, resamples, seed),
        invalid={kind.value: int((status == kind.value).sum()) for kind in Status if kind is not Status.OK},
        baselines={
            "random": random_baseline(counts, int(groups.max()) + 1),
            "majority": majority_baseline(gold, groups, resamples, seed),
            "text_only": None,
        },
        without_corrupt=sound,
    )


@dataclass(frozen=True)
class Choices:
    """What a file of predictions chose, question by question.

    Attributes:
        items: The dataset's questions, with the columns `m4rag.datasets.items.ITEMS`.
        named: Whether the file has a row for the question, shape (rows,).
        choice: 0-based option chosen, -1 without one, shape (rows,).
        status: A value of `Status`, shape (rows,).
    """

    items: pa.Table
    named: np.ndarray
    choice: np.ndarray
    status: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Whether each question is answered rightly, shape (rows,)."""
        right: np.ndarray = self.choice == self.items["answer_index"].to_numpy()
        return right


def read_choices(dataset: str, items: Path | None, predictions: Path, parser: str) -> Choices:
    """Read predictions beside the questions they answer; arguments and errors are those of `score_predictions`."""
    import pyarrow.compute as pc

    if parser not in PARSERS:
        raise UsageError(f"unknown parser {parser!r}", remedy=f"Known: {', '.join(PARSERS)}.")
    table = load_items(dataset, items)
    refuse(table, dataset, items or dataset)
    ids = table["question_id"].combine_chunks()
    given = read_predictions(predictions)
    choice, status = _parse(_aligned(given, ids, predictions), table["options"], parser)
    named = pc.is_in(ids, value_set=given["question_id"].combine_chunks()).to_numpy(zero_copy_only=False)
    return Choices(table, named, choice, status)


def read_predictions(path: Path) -> pa.Table:
    """Read predictions as a table of `question_id` and `prediction`, both strings.

    Raises:
        BadData: The file is unreadable, lacks a column, holds a column of the wrong type or a row without a language.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = read_columns(path)
    if "question_id" not in table.column_names:
        need_columns(table, ["qa_id", "lang", "prediction"], path, "a file of predictions")
        language = as_text(table["lang"], "lang", path)
        if language.null_count:
            lookup(None)
        ids = question_ids(as_text(table["qa_id"], "qa_id", path), language)
    else:
        need_columns(table, ["question_id", "prediction"], path, "a file of predictions")
        ids = as_text(table["question_id"], "question_id", path)
    if ids.null_count:
        raise BadData(f"{ids.null_count} rows without a question id", where=str(path))
    prediction = table["prediction"]
    if pa.types.is_floating(prediction.type):
        # A column of numbers with gaps: 3.0 was 3, and a gap is a missing prediction, not the text "nan".
        whole = pc.fill_null(pc.equal(pc.floor(prediction), prediction), False)
        prediction = pc.if_else(whole, prediction, None).cast(pa.int64())
    return pa.table({"question_id": ids, "prediction": as_text(prediction, "prediction", path)})


def published(text: str, options: Sequence[str]) -> int | None:  # noqa: ARG001 - these rules never look at the options
    """The rules of the published WorldCuisines scorer; digits of every script count, as they do for Python.

    An integer; else an integer with a dot at the start; else the first run of digits anywhere; else nothing. An answer
    that names an option by its text never scores.
    """
    number = _integer(text)
    if number is not None:
        return number
    found = re.match(r"(\d+)\.", text) or re.search(r"(\d+)", text)
    return _integer(found[1]) if found else None


def paper_parity(text: str, options: Sequence[str]) -> int | None:  # noqa: ARG001 - nor do these
    """The rules of the published M4-RAG evaluation: see `m4rag.vlm.parsing.paper_parity`."""
    return parsing.paper_parity(text)


def strict(text: str, options: Sequence[str]) -> int | None:
    """Our rules: the whole answer must be an option's number, its text, or both in agreement, or a JSON object.

    `3`, `3.`, `(3)`, `3.0`, `Pho` and `3. Pho` are read; a sentence that happens to hold a digit is not, nor is a text
    that two options share. Texts are compared after NFKC, case folding and without punctuation around them. Thinking
    is no answer, and of JSON objects the last one counts, as in runs (`m4rag.vlm.parsing.parse`).
    """
    stated = parsing.stated_number(text)
    return _number_or_text(parsing.after_thinking(text), options) if stated is None else stated


def _number_or_text(text: str, options: Sequence[str]) -> int | None:
    number = _integer(text)
    if number is not None and 1 <= number <= len(options):
        return number
    bare = _bare(text)
    named = [place for place, option in enumerate(options, start=1) if bare and _bare(option) == bare]
    if named:
        return named[0] if len(named) == 1 else None
    if number is not None:
        return number
    if found := re.fullmatch(r"(\d+)(?:\.0+)?", bare):
        return _integer(found[1])
    if found := re.fullmatch(r"(\d+)\s*[.):\-]\s*(\S.*)", bare):
        number = _integer(found[1])
        if number is not None and 1 <= number <= len(options) and _bare(options[number - 1]) == _bare(found[2]):
            return number
    return None


PARSERS: dict[str, Parser] = {"published": published, "paper-parity": paper_parity, "strict": strict}
LOOK_AT_OPTIONS = frozenset({"strict"})


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        # Not a number, or one of more digits than Python reads: no option either way, but only the latter is a number.
        return -1 if text.isdecimal() else None


def _bare(text: str) -> str:
    """Text for comparison: NFKC, case folded, spaces run together, without punctuation and symbols around it."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    start, end = 0, len(folded)
    while start < end and unicodedata.category(folded[start])[0] in "PSZ":
        start += 1
    while end > start and unicodedata.category(folded[end - 1])[0] in "PSZ":
        end -= 1
    return folded[start:end]


def _aligned(predictions: pa.Table, ids: pa.Array, path: Path) -> pa.Array:
    """The prediction of each question in the order of `ids`, null where there is none."""
    import pyarrow.compute as pc

    given = predictions["question_id"].combine_chunks()
    if len(pc.unique(given)) != len(given):
        counts = given.value_counts()
        doubled = counts.filter(pc.greater(counts.field("counts"), 1))
        raise BadData(
            f"{len(doubled)} questions answered more than once, first {doubled[0]['values']}", where=str(path)
        )
    unknown = given.filter(pc.invert(pc.is_in(given, value_set=ids)))
    if len(unknown):
        raise BadData(
            f"{len(unknown)} predictions belong to no question, first {unknown[0]}",
            where=str(path),
            remedy="Name the items that these predictions were made for.",
        )
    return predictions["prediction"].combine_chunks().take(pc.index_in(ids, value_set=given))


def _parse(texts: pa.Array, options: pa.ChunkedArray, parser: str) -> tuple[np.ndarray, np.ndarray]:
    """Choice (0-based, -1 without one) and status of every row."""
    import numpy as np
    import pyarrow.compute as pc

    read = PARSERS[parser]
    if parser in LOOK_AT_OPTIONS:
        rows = zip(texts.to_pylist(), options.to_pylist(), strict=True)
        found = [None if text is None else read(text, listed) for text, listed in rows]
    else:
        # Few texts are distinct and the options do not matter, so each is parsed once.
        encoded = texts.dictionary_encode()
        distinct = [read(text, ()) for text in encoded.dictionary.to_pylist()] + [None]
        found = [distinct[code] for code in encoded.indices.fill_null(-1).to_pylist()]
    numbers = np.array([np.nan if number is None else number for number in found], dtype=float)
    inside = (numbers >= 1) & (numbers <= pc.list_value_length(options).to_numpy())
    status = np.full(len(numbers), Status.OUT_OF_RANGE.value, dtype=object)
    status[inside] = Status.OK.value
    status[np.isnan(numbers)] = Status.UNPARSABLE.value
    status[texts.is_null().to_numpy(zero_copy_only=False)] = Status.ERROR.value
    return np.where(inside, np.nan_to_num(numbers) - 1, -1).astype(np.int64), status


def group_numbers(names: pa.ChunkedArray) -> np.ndarray:
    """Images as numbers from 0 in the order of their names, so that the order of the rows does not change the draws."""
    import numpy as np

    encoded = names.combine_chunks().dictionary_encode()
    ranks = np.unique(encoded.dictionary.to_pylist(), return_inverse=True)[1]
    numbers: np.ndarray = ranks[encoded.indices.to_numpy()]
    return numbers


def _accuracy(right: np.ndarray, groups: np.ndarray, resamples: int, seed: int) -> Estimate:
    import numpy as np

    sums = group_sums(right, np.unique(groups, return_inverse=True)[1], everything(len(right)))
    return sums.estimates(resampled_means({ALL: sums}, resamples=resamples, seed=seed)[ALL])[ALL]


def _accuracies(right: np.ndarray, groups: np.ndarray, table: pa.Table, resamples: int, seed: int) -> dict[str, Any]:
    """The accuracies of `PredictionScores`, all from the same draws."""
    import numpy as np

    if PAIR in table.column_names:
        varieties = partition(table[PAIR].to_pylist())
    else:
        varieties = partition([lookup(code).code for code in table["language"].to_pylist()])
    kinds = partition([kind or ALL for kind in table["prompt_type"].to_pylist()])
    width, images = len(varieties.labels), int(groups.max()) + 1
    crossed = Partition(varieties.labels * len(kinds.labels), kinds.codes * width + varieties.codes)
    parts = {ALL: everything(len(right)), "variety": varieties, "crossed": crossed}
    sums = {name: group_sums(right, groups, cells) for name, cells in parts.items()}
    draws = resampled_means(sums, resamples=resamples, seed=seed)
    macro_by_prompt_type, by_variety = {}, {}
    for place, kind in enumerate(kinds.labels):
        mine = np.s_[:, place * width : (place + 1) * width]
        cells = Sums(varieties.labels, sums["crossed"].right[mine], sums["crossed"].rows[mine])
        by_variety[kind] = cells.estimates(draws["crossed"][mine])
        with_rows = int((cells.rows.sum(axis=1) > 0).sum())
        macro_by_prompt_type[kind] = macro_estimate(cells, draws["crossed"][mine], with_rows)
    return {
        "accuracy": sums[ALL].estimates(draws[ALL])[ALL],
        "macro": macro_estimate(sums["variety"], draws["variety"], images),
        "macro_by_prompt_type": macro_by_prompt_type,
        "by_variety": by_variety,
    }
