"""The tables of one run for people who ask further: Parquet, zstd, one file a question that is often asked.

answers.parquet       one row an answer, as the model gave it
passages.parquet      every passage shown, once
per_question.parquet  one row a question; for each setting: choice, status, right or wrong, gold passage shown or not,
                      and of a judged run the passages' judged relevance: mean, max, first
judgements.parquet    one row a question and passage, as the judge gave it; only of a judged run
relevance.parquet     one row a setting and range of judged relevance: retention, correction, what context changes; only
                      of a judged run
by_language.parquet   one row a language; for each setting: accuracy with its 95 % interval
breakdowns.parquet    one row a setting, dimension and value (`all` for the whole setting)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag.bench.contexts import has_context
from m4rag.bench.export import score_table
from m4rag.bench.joined import answers_by_setting, gold_shown, read_folder_table, right, shown_passages
from m4rag.bench.judgements import JUDGEMENTS, read_scores
from m4rag.bench.paired import Difference
from m4rag.bench.relevance import Relevance, aggregates
from m4rag.bench.runs import Judgement, RunPlan
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


def run_tables(folder: Path, plan: RunPlan, scores: Scores, relevance: Relevance | None = None) -> Tables:
    """Make the tables of a finished, scored run.

    Args:
        folder: The run folder.
        plan: Its plan.
        scores: Its scores.
        relevance: Its judged relevance, None if it was not judged.

    Raises:
        BadData: The run is incomplete; names the folder and what is missing.
    """
    import pyarrow as pa

    questions = read_folder_table(folder / "questions", Question)
    answers = answers_by_setting(folder, plan, questions)
    passages = shown_passages(folder, answers.values())
    per_question = questions
    judged = None if relevance is None else read_scores(folder)
    shares = {}
    for setting, rows in answers.items():
        for column in ("choice", "status"):
            per_question = per_question.append_column(f"{setting}.{column}", rows[column])
        per_question = per_question.append_column(f"{setting}.right", pa.chunked_array([right(rows, questions)]))
        shown = gold_shown(rows, questions, passages)
        if shown is not None:
            per_question = per_question.append_column(f"{setting}.gold_shown", pa.array(shown, pa.bool_()))
            shares[setting] = 100 * sum(shown) / len(shown)
        if judged is not None and has_context(setting):
            found = aggregates(questions, rows, judged)
            for name, kind in (("mean", pa.float64()), ("max", pa.int64()), ("first", pa.int64())):
                column = pa.array([getattr(each, name, None) for each in found], kind)
                per_question = per_question.append_column(f"{setting}.relevance_{name}", column)
    tables = {
        "settings": _settings(scores, shares),
        "answers": pa.concat_tables(answers.values()),
        "passages": passages,
        "per_question": per_question,
        "by_language": _by_language(scores),
        "breakdowns": score_table(scores),
    }
    if relevance is not None:
        tables["judgements"] = read_folder_table(folder / JUDGEMENTS, Judgement)
        tables["relevance"] = _relevance(relevance)
    return Tables(tables, shares)


def _relevance(relevance: Relevance) -> pa.Table:
    import pyarrow as pa

    rows = []
    for setting in (*relevance.settings, *([relevance.pooled] if relevance.pooled else [])):
        for part in (*setting.bins, *setting.summary, setting.overall):
            row = {"setting": setting.setting, **part.model_dump(exclude={"retention", "correction", "effect"})}
            for rate in ("retention", "correction"):
                estimate = getattr(part, rate)
                for column in ("value", "low", "high", "n"):
                    name = rate if column == "value" else f"{rate}_{column}"
                    row[name] = None if estimate is None else getattr(estimate, column)
            rows.append(row | _effect(part.effect))
    return pa.Table.from_pylist(rows, schema=_relevance_schema())


def _relevance_schema() -> pa.Schema:
    # Named types: a rate that is missing everywhere would give a column without one.
    import pyarrow as pa

    columns = [("setting", pa.string()), ("label", pa.string())]
    columns += [("low", pa.float64()), ("high", pa.float64()), ("n", pa.int64())]
    for rate in ("retention", "correction"):
        columns += [(name, pa.float64()) for name in (rate, f"{rate}_low", f"{rate}_high")]
        columns.append((f"{rate}_n", pa.int64()))
    return pa.schema(columns + [(name, pa.float64()) for name in _effect(None)])


def _effect(effect: Difference | None) -> dict[str, float | None]:
    """What context gives as columns, all None where it is not known; p is the adjusted one where there is one."""
    names = ("effect", "effect_low", "effect_high", "effect_p")
    if effect is None:
        return dict.fromkeys(names)
    p = effect.p if effect.p_holm is None else effect.p_holm
    return dict(zip(names, (effect.value, effect.low, effect.high, p), strict=True))


def _settings(scores: Scores, gold_shown: dict[str, float]) -> pa.Table:
    import pyarrow as pa

    rows = []
    for setting in scores.settings:
        row = setting.model_dump(
            exclude={"accuracy", "macro", "invalid", "invalid_rate", "breakdowns", "positions", "effect"}
        )
        for name in ("accuracy", "macro", "invalid_rate"):
            estimate = getattr(setting, name)
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        row |= {f"invalid_{kind.value}": setting.invalid.get(kind.value, 0) for kind in Status if kind is not Status.OK}
        rows.append({**row, **_effect(setting.effect), "gold_shown": gold_shown.get(setting.setting)})
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
