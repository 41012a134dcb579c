"""Two sets of answers compared question by question: two runs, two settings, two files of predictions.

Compared are the questions that both sides were asked. Those that only one side has are counted and named, never quietly
dropped, and a question without a valid answer counts as wrong, as it does in the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from m4rag.bench.joined import answers_by_setting, read_folder_table, right
from m4rag.bench.paired import Difference, paired_differences
from m4rag.bench.predictions import group_numbers, read_choices
from m4rag.bench.runs import RunPlan
from m4rag.bench.scoring import VARIETY
from m4rag.bench.statistics import ALL, RESAMPLES, Estimate, Partition, everything, interval, macro, partition
from m4rag.errors import BadData, UsageError
from m4rag.languages import lookup
from m4rag.schema import Question, Status

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

NAMED = 5
"""How many of the questions that only one side has are named."""


class Side(BaseModel):
    """One of the two sides.

    Attributes:
        name: Run folder or file of predictions.
        setting: Setting, "" for predictions.
        model: Served model name, "" for predictions.
        note: The model's warning (e.g. random weights), None if there is none.
        n: Questions it was asked.
        accuracy: Percent right of all of these.
        unusable: Questions among them without a valid answer; they count as wrong.
        unpaired: Questions that the other side was not asked, which are not compared.
        unpaired_right: How many of these are right.
        unpaired_ids: The first few of these.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    setting: str
    model: str
    note: str | None
    n: int
    accuracy: float
    unusable: int
    unpaired: int
    unpaired_right: int
    unpaired_ids: tuple[str, ...]

    @property
    def label(self) -> str:
        """Its name on tables and plots."""
        return " · ".join(part for part in (Path(self.name).stem, self.setting) if part)


class Comparison(BaseModel):
    """B against A. All differences are B minus A, in points.

    Attributes:
        dataset: Dataset name.
        a: One side, the baseline.
        b: The other side.
        overall: Difference over all paired questions.
        macro: Mean of the varieties' differences in points, with its bootstrap interval.
        breakdowns: Dimension (`variety`, `language`, `joshi`, `script`, `prompt_type`) to value to difference; p values
            are adjusted within each dimension. A dimension with one value only is left out, but for `variety`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    a: Side
    b: Side
    overall: Difference
    macro: Estimate
    breakdowns: dict[str, dict[str, Difference]]


class Comparisons(BaseModel):
    """One comparison for each pair of settings.

    Attributes:
        pairs: The comparisons, in A's order of settings.
        settings_a_only: Settings of A that B lacks and that are therefore not compared; empty where
            settings were named.
        settings_b_only: Likewise of B.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: tuple[Comparison, ...]
    settings_a_only: tuple[str, ...] = ()
    settings_b_only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answered:
    """One side's answers as columns.

    Attributes:
        name: Run folder or file of predictions.
        setting: Setting, "" for predictions.
        model: Served model name, "" for predictions.
        note: The model's warning.
        dataset: Dataset name.
        questions: Columns `question_id`, `language`, `prompt_type`, `group`, `gold_text`, a row for each question
            asked.
        right: Whether each is answered rightly, shape (rows,).
        valid: Whether each has a valid answer, shape (rows,).
        prompt_language: Language of the instructions: a code, `native` where each question has its own, `mixed`.
        context_language: Language of the context, likewise; "" without context.
    """

    name: str
    setting: str
    model: str
    note: str | None
    dataset: str
    questions: pa.Table
    right: np.ndarray
    valid: np.ndarray
    prompt_language: str = ""
    context_language: str = ""


@dataclass(frozen=True)
class Predictions:
    """How files of predictions are read; see `m4rag.bench.predictions.score_predictions`."""

    dataset: str
    items: Path | None
    parser: str = "published"


def compare_paths(
    a: Path,
    b: Path,
    *,
    setting: str | None = None,
    setting_b: str | None = None,
    predictions: Predictions | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparisons:
    """Compare two run folders, two files of predictions, or one of each.

    Args:
        a: Run folder, or a file of predictions: the baseline.
        b: What is compared with it; may be the same run if two settings are named.
        setting: Setting of A (and of B). Default: every setting that both runs have.
        setting_b: Setting of B where it is another one than A's.
        predictions: How files of predictions are read.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        UsageError: The settings do not say what is to be compared.
        BadData: A path holds neither a run nor predictions, the sides have no question in common, or they disagree
            about what a question is.
    """
    sides_a, sides_b = _read(a, predictions), _read(b, predictions)
    chosen = _pairs(sides_a, sides_b, setting, setting_b)
    if a.resolve() == b.resolve() and any(one == other for one, other in chosen):
        raise UsageError(f"{a} compared with itself", remedy="Name two settings with --setting and --setting-b.")
    pairs = tuple(compare(sides_a[one], sides_b[other], resamples=resamples, seed=seed) for one, other in chosen)
    if setting is not None or not (_is_run(a) and _is_run(b)):
        return Comparisons(pairs=pairs)
    return Comparisons(
        pairs=pairs,
        settings_a_only=tuple(name for name in sides_a if name not in sides_b),
        settings_b_only=tuple(name for name in sides_b if name not in sides_a),
    )


def compare(a: Answered, b: Answered, *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Compare two sides over the questions that both have.

    Raises:
        BadData: They are of two datasets, have no question in common, or disagree about what a question is.
    """
    import numpy as np
    import pyarrow.compute as pc

    if a.dataset != b.dataset:
        raise BadData(f"questions of {a.dataset} against questions of {b.dataset}", where=f"{a.name}, {b.name}")
    places = pc.index_in(a.questions["question_id"], value_set=b.questions["question_id"].combine_chunks())
    shared = ~np.asarray(places.is_null())
    if not shared.any():
        raise BadData(
            "no question in common", where=f"{a.name}, {b.name}", remedy="Compare runs of the same questions."
        )
    in_b = places.drop_null().to_numpy()
    asked = a.questions.filter(shared)
    need_same_questions(asked, b.questions.take(in_b), f"{a.name}, {b.name}")
    alone = np.ones(len(b.right), dtype=bool)
    alone[in_b] = False
    parts = _parts(asked)
    found, draws = paired_differences(
        a.right[shared], b.right[in_b], group_numbers(asked["group"]), parts, resamples=resamples, seed=seed
    )
    overall = found.pop(ALL)[ALL]
    return Comparison(
        dataset=a.dataset,
        a=_side(a, ~shared),
        b=_side(b, alone),
        overall=overall,
        macro=_macro(found[VARIETY], draws[VARIETY], overall),
        breakdowns=found,
    )


def write_csv(comparisons: Comparisons, path: Path) -> None:
    """Write every difference as one row: the two sides, the dimension and its value, and the fields of `Difference`."""
    import pyarrow as pa
    from pyarrow import csv

    rows = [
        {"side_a": pair.a.label, "side_b": pair.b.label, "dimension": dimension, "cell": name, **cell.model_dump()}
        for pair in comparisons.pairs
        for dimension, cells in {ALL: {ALL: pair.overall}, **pair.breakdowns}.items()
        for name, cell in cells.items()
    ]
    csv.write_csv(pa.Table.from_pylist(rows), path)


def _read(path: Path, predictions: Predictions | None) -> dict[str, Answered]:
    """The sides that a path holds, by setting."""
    if _is_run(path) or path.is_dir():
        return read_run(path)
    if not path.exists():
        raise BadData("no such run folder or file of predictions", where=str(path))
    if predictions is None:
        raise UsageError("a file of predictions without its dataset", where=str(path))
    read = read_choices(predictions.dataset, predictions.items, path, predictions.parser)
    valid = read.status == Status.OK.value
    named = read.named
    table = _question_columns(read.items).filter(named)
    return {"": Answered(str(path), "", "", None, predictions.dataset, table, read.right[named], valid[named])}


def read_run(folder: Path) -> dict[str, Answered]:
    """A run's settings with their answers, in the order of the plan.

    Raises:
        BadData: The folder holds no complete run.
    """
    import numpy as np
    import pyarrow.compute as pc

    plan = RunPlan.read(folder)
    questions = read_folder_table(folder / "questions", Question)
    columns = _question_columns(questions)
    sides = {}
    for setting, answers in answers_by_setting(folder, plan, questions).items():
        valid = np.asarray(pc.equal(answers["status"], Status.OK.value))
        correct = np.asarray(right(answers, questions)) & valid
        sides[setting] = Answered(
            str(folder),
            setting,
            plan.model.name,
            plan.model.note,
            plan.dataset,
            columns,
            correct,
            valid,
            _spoken(answers["prompt_language"], questions["language"]),
            _spoken(answers["context_language"], questions["language"]),
        )
    return sides


def _spoken(languages: pa.ChunkedArray, asked: pa.ChunkedArray) -> str:
    """The one language of all rows, `native` where it is each question's own, else `mixed`."""
    import pyarrow.compute as pc

    different = pc.unique(languages).to_pylist()
    if len(different) == 1:
        return str(different[0])
    return "native" if pc.all(pc.equal(languages, asked)).as_py() else "mixed"


def _is_run(path: Path) -> bool:
    return (path / "plan.json").exists()


def _question_columns(table: pa.Table) -> pa.Table:
    import pyarrow as pa

    rows = zip(table["options"].to_pylist(), table["answer_index"].to_pylist(), strict=True)
    columns = {name: table[name].cast(pa.string()) for name in ("question_id", "language", "prompt_type", "group")}
    return pa.table(columns | {"gold_text": pa.array([options[gold] for options, gold in rows], pa.string())})


def _pairs(
    a: dict[str, Answered], b: dict[str, Answered], setting: str | None, setting_b: str | None
) -> list[tuple[str, str]]:
    """The settings to compare, A's and B's."""
    if setting_b is not None and setting is None:
        raise UsageError("--setting-b without --setting", remedy="Name A's setting with --setting.")
    if setting is not None:
        # A file of predictions has one nameless setting.
        one = "" if "" in a else setting
        other = "" if "" in b else setting_b or setting
        for sides, name in ((a, one), (b, other)):
            if name not in sides:
                where = next(iter(sides.values())).name
                raise UsageError(f"no setting {name!r}", where=where, remedy=f"It has: {', '.join(sides)}.")
        return [(one, other)]
    common = [(name, name) for name in a if name in b]
    if not common:
        listed = "; ".join(f"{next(iter(sides.values())).name}: {', '.join(sides)}" for sides in (a, b))
        raise UsageError("no setting in common", where=listed, remedy="Name two with --setting and --setting-b.")
    return common


def need_same_questions(asked_a: pa.Table, asked_b: pa.Table, where: str) -> None:
    """Check that a question id means the same question on both sides.

    Args:
        asked_a: Columns of `Answered.questions`.
        asked_b: The same questions in the same order, as the other side has them.
        where: Both sides' names, for the error.

    Raises:
        BadData: A question has another language, image or right answer on the other side.
    """
    import numpy as np
    import pyarrow.compute as pc

    for column, what in (("language", "language"), ("group", "image"), ("gold_text", "right answer")):
        differ = np.asarray(pc.not_equal(asked_a[column], asked_b[column]))
        if differ.any():
            first = asked_a["question_id"][int(differ.argmax())].as_py()
            raise BadData(
                f"{int(differ.sum())} questions have another {what} on the other side, first {first}",
                where=where,
                remedy="Compare answers to the same version of the dataset.",
            )


def _parts(asked: pa.Table) -> dict[str, Partition]:
    varieties = [lookup(code) for code in asked["language"].to_pylist()]
    parts = {
        VARIETY: partition([variety.code for variety in varieties]),
        "language": partition([variety.language.code for variety in varieties]),
        "joshi": partition([str(variety.language.joshi) for variety in varieties]),
        "script": partition([variety.script for variety in varieties]),
        "prompt_type": partition([kind or "" for kind in asked["prompt_type"].to_pylist()]),
    }
    divided = {name: cells for name, cells in parts.items() if name == VARIETY or len(cells.labels) > 1}
    return {ALL: everything(asked.num_rows), **divided}


def _macro(cells: dict[str, Difference], draws: np.ndarray, overall: Difference) -> Estimate:
    import numpy as np

    value = float(np.mean([cell.value for cell in cells.values()]))
    low, high = interval(macro(draws), overall.groups) or (overall.low / 100, overall.high / 100)
    return Estimate(value=value, low=100 * low, high=100 * high, n=overall.n, groups=overall.groups)


def _side(side: Answered, unpaired: np.ndarray) -> Side:
    ids: Sequence[str] = side.questions["question_id"].filter(unpaired)[:NAMED].to_pylist()
    return Side(
        name=side.name,
        setting=side.setting,
        model=side.model,
        note=side.note,
        n=len(side.right),
        accuracy=100 * float(side.right.mean()),
        unusable=int((~side.valid).sum()),
        unpaired=int(unpaired.sum()),
        unpaired_right=int(side.right[unpaired].sum()),
        unpaired_ids=tuple(ids),
    )
