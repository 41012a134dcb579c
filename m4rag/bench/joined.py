"""A finished run as columns: each setting's answers beside the questions they answer, as Arrow tables.

The report and the record both read a run through this module. It stays in Arrow because a full WorldCuisines run has
360,000 answers.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from m4rag.bench.runs import Passage, RunPlan
from m4rag.bench.scoring import Scores
from m4rag.errors import BadData
from m4rag.manifests import Manifest
from m4rag.schema import Answer, Question, Row
from m4rag.shards import arrow_schema, later_columns, read_table

if TYPE_CHECKING:
    import pyarrow as pa

Computed = TypeVar("Computed", bound=BaseModel)


def read_folder_table(folder: Path, model: type[Row]) -> pa.Table:
    """All rows of a complete folder as one Arrow table.

    Raises:
        BadData: The folder has no manifest, or a file it names is missing, short or lacks a column.
    """
    import pyarrow as pa

    tables = []
    for file in Manifest.read(folder).files:
        table = read_table(folder / file.name, list(model.model_fields), later_columns(model))
        if table.num_rows != file.rows:
            raise BadData(f"{table.num_rows} rows where the manifest says {file.rows}", where=str(folder / file.name))
        tables.append(table)
    return pa.concat_tables(tables).combine_chunks() if tables else arrow_schema(model).empty_table()


def read_scores(folder: Path) -> Scores:
    """A run's scores.

    Raises:
        BadData: The folder holds no run, the run is not scored yet, the file is damaged, or it belongs to another run.
    """
    plan = RunPlan.read(folder)
    path = folder / "scores.json"
    scores = read_computed(path, Scores, "the run is not scored")
    scored = tuple(setting.setting for setting in scores.settings)
    if scored != plan.settings or scores.questions != plan.n_questions:
        raise BadData(
            f"scores of {scores.questions} questions in {', '.join(scored)} where the run has {plan.n_questions} in "
            f"{', '.join(plan.settings)}",
            where=str(path),
            remedy=remedy_for(folder),
        )
    return scores


def read_computed(path: Path, model: type[Computed], absent: str) -> Computed:
    """A file of a run folder that `bench score` computes from the others.

    Args:
        path: The file.
        model: What it holds.
        absent: What it means that there is none.

    Raises:
        BadData: The file is missing or damaged.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BadData(absent, where=str(path.parent), remedy=remedy_for(path.parent)) from None
    except ValidationError as error:
        raise BadData(
            f"damaged {path.stem} ({error.error_count()} errors)", where=str(path), remedy=remedy_for(path.parent)
        ) from None


def remedy_for(folder: Path) -> str:
    """What to do about a computed file that is missing, damaged or out of date."""
    return f"Run `m4rag bench score {folder}`."


def answers_by_setting(folder: Path, plan: RunPlan, questions: pa.Table) -> dict[str, pa.Table]:
    """Each setting's answers, rows in the order of the questions.

    Args:
        folder: The run folder.
        plan: Its plan.
        questions: Its questions.

    Raises:
        BadData: A question has no answer, or two, in one of the plan's settings.
    """
    import pyarrow.compute as pc

    answers = read_folder_table(folder / "answers", Answer)
    wanted = questions["question_id"].combine_chunks()
    split = {}
    for setting in plan.settings:
        rows = answers.filter(pc.equal(answers["setting"], setting))
        if len(pc.unique(rows["question_id"])) != rows.num_rows:
            raise BadData(f"a question has two answers in {setting}", where=str(folder / "answers"))
        positions = pc.index_in(wanted, value_set=rows["question_id"].combine_chunks())
        if positions.null_count or rows.num_rows != len(wanted):
            raise BadData(
                f"{rows.num_rows} answers to {len(wanted)} questions in {setting}", where=str(folder / "answers")
            )
        split[setting] = rows.take(positions)
    return split


def right(answers: pa.Table, questions: pa.Table) -> pa.BooleanArray:
    """Whether each answer is right; one without a choice is wrong."""
    import pyarrow.compute as pc

    equal = pc.equal(answers["choice"], questions["answer_index"])
    return pc.fill_null(equal, False).combine_chunks()


def gold_shown(answers: pa.Table, questions: pa.Table, passages: pa.Table) -> list[bool] | None:
    """Whether a gold document was among the passages that each question's model saw.

    A gold id names a document outright or leaves the language out (see `m4rag.schema.Question.gold`).

    Returns:
        One flag a question; None where nothing was shown or no question names its gold documents.
    """
    names = document_names(passages)
    golds = questions["gold"].to_pylist()
    shown = shown_ids(answers)
    if not any(golds) or not any(shown):
        return None
    flags = []
    for gold, chunks in zip(golds, shown, strict=True):
        wanted = set(gold)
        flags.append(any(not wanted.isdisjoint(names.get(chunk, ())) for chunk in chunks))
    return flags


def shown_ids(answers: pa.Table) -> list[list[str]]:
    """The chunk ids of the passages that each question's model saw, best first."""
    return [[row["chunk_id"] for row in rows] for rows in answers["retrieved"].to_pylist()]


def document_names(passages: pa.Table) -> dict[str, set[str]]:
    """Chunk id to the gold ids that its document answers to: its own id, and that without the language."""
    columns = zip(
        passages["chunk_id"].to_pylist(),
        passages["document_id"].to_pylist(),
        passages["language"].to_pylist(),
        strict=True,
    )
    return {chunk: {document, document.removesuffix(f":{language}")} for chunk, document, language in columns}


def shown_passages(folder: Path, answers: Collection[pa.Table]) -> pa.Table:
    """The run's passages; an empty table for a run in which no setting shows any.

    Raises:
        BadData: Answers name passages but the run has none.
    """
    if not (folder / "passages").exists() and not any(_any_retrieved(table) for table in answers):
        return arrow_schema(Passage).empty_table()
    return read_folder_table(folder / "passages", Passage)


def _any_retrieved(answers: pa.Table) -> bool:
    import pyarrow.compute as pc

    return bool(pc.max(pc.list_value_length(answers["retrieved"])).as_py())


def row(table: pa.Table, position: int) -> dict[str, Any]:
    """One row of a table as plain values."""
    record: dict[str, Any] = table.slice(position, 1).to_pylist()[0]
    return record


def question_at(questions: pa.Table, position: int) -> Question:
    """One question."""
    record = row(questions, position)
    return Question.model_validate({**record, "extra": json.loads(record["extra"])})


def answer_at(answers: pa.Table, position: int) -> Answer:
    """One answer."""
    return Answer.model_validate(row(answers, position))
