"""The tables of one run for people who ask further: Parquet, zstd, one file a question that is often asked.

answers.parquet       one row an answer, as the model gave it
passages.parquet      every passage shown, once
per_question.parquet  one row a question; for each setting: choice, status, right or wrong, gold passage shown or not
by_language.parquet   one row a language; for each setting: accuracy with its 95 % interval
breakdowns.parquet    one row a setting, dimension and value
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag.bench.joined import answers_by_setting, gold_shown, read_folder_table, right, shown_passages
from m4rag.bench.runs import RunPlan
from m4rag.bench.scoring import Scores
from m4rag.languages import lookup
from m4rag.schema import Question, Status

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Tables:
    """A run's tables.

    Attributes:
        by_name: File name without suffix to table.
        gold_shown: Setting to percentage of questions whose gold document was among the passages shown.
    """

    by_name: dict[str, pa.Table]
    gold_shown: dict[str, float]

    def write(self, folder: Path) -> list[Path]:
        """Write every table as Parquet; returns the files."""
        import pyarrow.parquet as pq

        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for name, table in self.by_name.items():
            files.append(folder / f"{name}.parquet")
            pq.write_table(table, files[-1], compression="zstd")
        return files


def run_tables(folder: Path, plan: RunPlan, scores: Scores) -> Tables:
    """Make the tables of a finished, scored run.

    Raises:
        BadData: The run is incomplete; names the folder and what is missing.
    """
    import pyarrow as pa

    questions = read_folder_table(folder / "questions", Question)
    answers = answers_by_setting(folder, plan, questions)
    passages = shown_passages(folder, answers.values())
    per_question = questions
    shares = {}
    for setting, rows in answers.items():
        for column in ("choice", "status"):
            per_question = per_question.append_column(f"{setting}.{column}", rows[column])
        per_question = per_question.append_column(f"{setting}.right", pa.chunked_array([right(rows, questions)]))
        shown = gold_shown(rows, questions, passages)
        if shown is not None:
            per_question = per_question.append_column(f"{setting}.gold_shown", pa.array(shown, pa.bool_()))
            shares[setting] = 100 * sum(shown) / len(shown)
    tables = {
        "settings": _settings(scores, shares),
        "answers": pa.concat_tables(answers.values()),
        "passages": passages,
        "per_question": per_question,
        "by_language": _by_language(scores),
        "breakdowns": _breakdowns(scores),
    }
    return Tables(tables, shares)


def _settings(scores: Scores, gold_shown: dict[str, float]) -> pa.Table:
    import pyarrow as pa

    rows = []
    for setting in scores.settings:
        row = setting.model_dump(exclude={"accuracy", "macro", "invalid", "invalid_rate", "breakdowns"})
        for name in ("accuracy", "macro", "invalid_rate"):
            estimate = getattr(setting, name)
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        row |= {f"invalid_{kind.value}": setting.invalid.get(kind.value, 0) for kind in Status if kind is not Status.OK}
        rows.append({**row, "gold_shown": gold_shown.get(setting.setting)})
    return pa.Table.from_pylist(rows)


def _by_language(scores: Scores) -> pa.Table:
    import pyarrow as pa

    rows = []
    for code, first in scores.settings[0].breakdowns["language"].items():
        language = lookup(code).language
        row = {
            "language": code,
            "name": language.name,
            "script": language.script,
            "joshi": language.joshi,
            "questions": first.n,
        }
        for setting in scores.settings:
            estimate = setting.breakdowns["language"][code]
            for column in ("value", "low", "high"):
                name = "accuracy" if column == "value" else f"accuracy_{column}"
                row[f"{setting.setting}.{name}"] = getattr(estimate, column)
        rows.append(row)
    return pa.Table.from_pylist(rows)


def _breakdowns(scores: Scores) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(
        [
            {
                "setting": setting.setting,
                "dimension": dimension,
                "key": key,
                "questions": estimate.n,
                "groups": estimate.groups,
                "accuracy": estimate.value,
                "accuracy_low": estimate.low,
                "accuracy_high": estimate.high,
            }
            for setting in scores.settings
            for dimension, cells in setting.breakdowns.items()
            for key, estimate in cells.items()
        ]
    )
