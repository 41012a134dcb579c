"""Scores of a run for other programs: every accuracy as CSV or Parquet, the table of settings as LaTeX."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag.bench.findings import TEXT_ONLY_LABEL
from m4rag.bench.joined import read_scores
from m4rag.bench.runs import RunPlan
from m4rag.bench.scoring import Scores, SettingScores
from m4rag.bench.statistics import ALL, Estimate
from m4rag.errors import UsageError
from m4rag.manifests import write_atomic

if TYPE_CHECKING:
    import pyarrow as pa

SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


def check_target(path: Path) -> None:
    """Refuse a file that `export` would not write.

    Raises:
        UsageError: Its ending is not one of `.csv`, `.parquet`, `.tex`, or its folder is not there.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"{path.name!r} is neither {', '.join(FORMATS)}", where="--out")
    if not path.absolute().parent.is_dir():
        raise UsageError("no such folder", where=f"--out {path}")


def export(run_folder: Path, path: Path) -> None:
    """Write a run's scores in the format that the file's ending names.

    Raises:
        UsageError: There is no such format.
        BadData: The folder holds no complete, scored run.
    """
    check_target(path)
    write_atomic(path, FORMATS[path.suffix](RunPlan.read(run_folder), read_scores(run_folder)))


def score_table(scores: Scores) -> pa.Table:
    """One row a setting, dimension and value: questions, images (`groups`), accuracy in percent with its interval.

    The whole of a setting is the row whose dimension and key are `all`.
    """
    import pyarrow as pa

    return pa.Table.from_pylist(
        [
            {
                "setting": setting.setting,
                "dimension": dimension,
                "key": key,
                "questions": found.n,
                "groups": found.groups,
                "accuracy": found.value,
                "accuracy_low": found.low,
                "accuracy_high": found.high,
            }
            for setting in scores.settings
            for dimension, cells in ({ALL: {ALL: setting.accuracy}} | setting.breakdowns).items()
            for key, found in cells.items()
        ]
    )


def latex(plan: RunPlan, scores: Scores) -> str:
    """The table of settings as a LaTeX table for the package booktabs.

    Args:
        plan: The run's plan.
        scores: Its scores.
    """
    notes = [plan.model.note] if plan.model.note is not None else []
    notes += [f"{TEXT_ONLY_LABEL}: no image was sent."] if plan.images == "none" else []
    about = (
        f"{plan.model.name} on {scores.questions} questions of {plan.dataset}: accuracy in percent with 95 % "
        "intervals, bootstrapped over images. Change: against no_rag, question by question, in points."
    )
    return "\n".join(
        [
            f"% Needs \\usepackage{{booktabs}}. Run {plan.digest}.",
            r"\begin{table}",
            rf"\caption{{{escaped(' '.join([about, *notes]))}}}",
            r"\begin{tabular}{lrrrrrr}",
            r"\toprule",
            r"Setting & Accuracy & Interval & Macro & Change & Interval & Unusable \\",
            r"\midrule",
            *(_baseline(name, found) for name, found in scores.baselines.items() if found is not None),
            r"\midrule",
            *(_row(setting) for setting in scores.settings),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """Text of any origin as LaTeX text in one line."""
    return " ".join(text.split()).translate(SPECIAL)


def _baseline(name: str, found: Estimate) -> str:
    return rf"{escaped(f'baseline: {name}')} & {found.value:.1f} & {_interval(found)} & & & & \\"


def _row(setting: SettingScores) -> str:
    effect = setting.effect
    change = "& " if effect is None else f"{_signed(effect.value)} & {_signed(effect.low)} to {_signed(effect.high)}"
    return (
        f"{escaped(setting.setting)} & {setting.accuracy.value:.1f} & {_interval(setting.accuracy)} & "
        rf"{setting.macro.value:.1f} & {change} & {sum(setting.invalid.values())} \\"
    )


def _interval(found: Estimate) -> str:
    return f"{found.low:.1f}--{found.high:.1f}"


def _signed(points: float) -> str:
    return f"${points:+.1f}$"


def _csv(_: RunPlan, scores: Scores) -> bytes:
    import pyarrow.csv as pc

    stream = io.BytesIO()
    pc.write_csv(score_table(scores), stream)
    return stream.getvalue()


def _parquet(_: RunPlan, scores: Scores) -> bytes:
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(score_table(scores), stream, compression="zstd")
    return stream.getvalue()


def _tex(plan: RunPlan, scores: Scores) -> bytes:
    return latex(plan, scores).encode()


FORMATS: dict[str, Callable[[RunPlan, Scores], bytes]] = {".csv": _csv, ".parquet": _parquet, ".tex": _tex}
