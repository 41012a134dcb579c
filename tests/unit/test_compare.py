"""Comparing runs, settings and files of predictions: what is paired, what is not, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_folders import MARKUP, write_run
from typer.testing import CliRunner

from m4rag.bench.compare import Comparison, Predictions, compare_paths
from m4rag.bench.compare_page import verdict, write_page
from m4rag.bench.joined import read_scores
from m4rag.bench.runs import RunPlan
from m4rag.cli import app
from m4rag.errors import BadData, UsageError
from m4rag.manifests import Manifest
from m4rag.schema import Answer, Question, Row
from m4rag.shards import read_folder, write_folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    write_run(tmp_path / "old")
    write_run(tmp_path / "new", seed=8, model="tiny-vlm-4b")
    return tmp_path / "old", tmp_path / "new"


def rewrite(folder: Path, model: type[Row], change: Callable[[Row], Row | None]) -> None:
    kept = [new for row in read_folder(folder, model) if (new := change(row)) is not None]
    old = Manifest.read(folder)
    for file in old.files:
        (folder / file.name).unlink()
    (folder / "manifest.json").unlink()
    write_folder(folder, model, kept, Manifest(kind=old.kind, command=old.command, config=old.config))


def one(a: Path, b: Path, setting: str, setting_b: str | None = None) -> Comparison:
    (pair,) = compare_paths(a, b, setting=setting, setting_b=setting_b, resamples=200).pairs
    return pair


def test_the_difference_is_that_of_the_scores_in_every_cell(runs: tuple[Path, Path]) -> None:
    compared = compare_paths(*runs, resamples=100)
    scores = [{setting.setting: setting for setting in read_scores(run).settings} for run in runs]
    assert [pair.a.setting for pair in compared.pairs] == ["text_only", "no_rag", "oracle", "caption_query"]
    for pair in compared.pairs:
        old, new = (scored[pair.a.setting] for scored in scores)
        assert pair.overall.value == pytest.approx(new.accuracy.value - old.accuracy.value)
        assert pair.macro.value == pytest.approx(new.macro.value - old.macro.value)
        assert pair.macro.low < pair.macro.value < pair.macro.high
        assert (pair.a.unpaired, pair.b.unpaired, pair.overall.n) == (0, 0, 180)
        assert pair.a.unusable == sum(old.invalid.values())
        for dimension, cells in pair.breakdowns.items():
            assert set(cells) == set(new.breakdowns[dimension])
            for name, cell in cells.items():
                assert cell.a == pytest.approx(old.breakdowns[dimension][name].value)
                assert cell.b == pytest.approx(new.breakdowns[dimension][name].value)
                assert cell.value == pytest.approx(cell.b - cell.a)
                assert cell.a_only - cell.b_only == round(-cell.value * cell.n / 100)
                assert cell.p <= (cell.p_holm or 0)


def test_two_settings_of_one_run(runs: tuple[Path, Path]) -> None:
    old = runs[0]
    pair = one(old, old, "no_rag", "oracle")
    assert (pair.a.label, pair.b.label) == ("old · no_rag", "old · oracle")
    assert pair.overall.value > 20
    assert pair.overall.clear
    assert verdict(pair).headline == f"old · oracle is better than old · no_rag by {pair.overall.value:.1f} points"
    turned = one(old, old, "oracle", "no_rag")
    assert turned.overall.value == pytest.approx(-pair.overall.value)
    assert verdict(turned).headline == verdict(pair).headline


def test_paired_intervals_are_narrower_than_two_single_ones(runs: tuple[Path, Path]) -> None:
    old, new = runs
    # The new run answers as the old one, but for one question of twenty.
    answers = {(row.question_id, row.setting): row for row in read_folder(old / "answers", Answer)}
    kept = {name for number, name in enumerate(sorted({key[0] for key in answers})) if number % 20}
    rewrite(
        new / "answers",
        Answer,
        lambda row: answers[row.question_id, row.setting] if row.question_id in kept else row,  # type: ignore[attr-defined]
    )
    pair = one(old, new, "no_rag")
    (single,) = (setting for setting in read_scores(old).settings if setting.setting == "no_rag")
    assert pair.overall.high - pair.overall.low < 0.6 * (single.accuracy.high - single.accuracy.low)
    assert verdict(pair).headline == "No clear difference between old · no_rag and new · no_rag"


def test_questions_of_one_side_only_are_counted_and_named(runs: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = runs
    gone = "tea-0-en"
    for name, model in (("questions", Question), ("answers", Answer)):
        rewrite(new / name, model, lambda row: None if row.question_id == gone else row)  # type: ignore[attr-defined]
    pair = one(old, new, "oracle")
    assert (pair.a.n, pair.b.n, pair.overall.n) == (180, 179, 179)
    assert (pair.a.unpaired, pair.a.unpaired_ids, pair.b.unpaired) == (1, (gone,), 0)
    turned = one(new, old, "oracle")
    assert (turned.a.unpaired, turned.b.unpaired, turned.b.unpaired_ids) == (0, 1, (gone,))
    done = CliRunner().invoke(app, ["bench", "compare", str(old), str(new), "--setting", "oracle"])
    assert "only A was asked, so not compared: 1 questions" in " ".join(done.stdout.split())
    write_page(compare_paths(old, new, resamples=50), tmp_path / "page.html")
    assert "Not every question is compared" in (tmp_path / "page.html").read_text()


def test_settings_of_one_side_only_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a", settings=("no_rag", "oracle"))
    write_run(tmp_path / "b", settings=("text_only", "no_rag"), seed=9)
    compared = compare_paths(tmp_path / "a", tmp_path / "b", resamples=50)
    assert [pair.a.setting for pair in compared.pairs] == ["no_rag"]
    assert (compared.settings_a_only, compared.settings_b_only) == (("oracle",), ("text_only",))
    done = CliRunner().invoke(app, ["bench", "compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert "only A has, so not compared: oracle" in done.stdout


def test_a_question_that_changed_is_refused(runs: tuple[Path, Path]) -> None:
    def turned(row: Row) -> Row:
        assert isinstance(row, Question)
        return row.model_copy(update={"answer_index": (row.answer_index + 1) % 4}) if row.language == "yo" else row

    rewrite(runs[1] / "questions", Question, turned)
    with pytest.raises(BadData, match="12 questions have another right answer on the other side, first tea-0-yo"):
        compare_paths(*runs)


def test_options_in_another_order_are_the_same_question(runs: tuple[Path, Path]) -> None:
    def turned(row: Row) -> Row:
        assert isinstance(row, Question)
        changes = {"options": row.options[::-1], "answer_index": len(row.options) - 1 - row.answer_index}
        return row.model_copy(update=changes)

    rewrite(runs[1] / "questions", Question, turned)
    assert one(*runs, "no_rag").overall.n == 180


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((None, None), "compared with itself"),
        (("oracle", None), "compared with itself"),
        ((None, "oracle"), "--setting-b without --setting"),
        (("oracle", "magic"), "no setting 'magic'. It has: text_only, no_rag, oracle, caption_query"),
    ],
)
def test_settings_that_say_nothing_are_refused(
    runs: tuple[Path, Path], settings: tuple[str | None, str | None], message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        compare_paths(runs[0], runs[0], setting=settings[0], setting_b=settings[1])
    assert message in str(refused.value)


def test_runs_without_a_common_setting_or_question_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "a", settings=("no_rag",))
    write_run(tmp_path / "b", settings=("oracle",))
    with pytest.raises(UsageError, match="no setting in common"):
        compare_paths(tmp_path / "a", tmp_path / "b")
    for name, model in (("questions", Question), ("answers", Answer)):
        rewrite(
            tmp_path / "b" / name,
            model,
            lambda row: row.model_copy(update={"question_id": f"x{row.question_id}"}),  # type: ignore[attr-defined]
        )
    with pytest.raises(BadData, match="no question in common"):
        compare_paths(tmp_path / "a", tmp_path / "b", setting="no_rag", setting_b="oracle")


QUESTIONS = 300


@pytest.fixture
def published(tmp_path: Path) -> Callable[[str, np.ndarray], Path]:
    """Questions whose right option is 1, and a writer of predictions that are right where told."""
    options = ["a", "b", "c", "d", "e"]
    rows = [
        {
            "qa_id": str(number),
            "lang": ("en", "yo", "th")[number % 3],
            "food_id": 1,
            "prompt_id": "1",
            "prompt_type": "1",
            "question": "?",
            "options": options,
            "answer_index": 1,
            "answer": "a",
            "image_url": f"https://example.org/{number // 3}.jpg",
        }
        for number in range(QUESTIONS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "items.parquet")

    def write(name: str, right: np.ndarray) -> Path:
        given = [
            {"qa_id": row["qa_id"], "lang": row["lang"], "prediction": "1" if good else "2"}
            for row, good in zip(rows, right, strict=False)
        ]
        pq.write_table(pa.Table.from_pylist(given), tmp_path / f"{name}.parquet")
        return tmp_path / f"{name}.parquet"

    return write


def test_predictions_of_a_known_difference(published: Callable[[str, np.ndarray], Path], tmp_path: Path) -> None:
    right = np.random.default_rng(1).random(QUESTIONS) < 0.5
    better = right.copy()
    lost, won = np.flatnonzero(right)[:6], np.flatnonzero(~right)[:36]
    better[lost], better[won] = False, True
    how = Predictions("worldcuisines", tmp_path / "items.parquet")
    (pair,) = compare_paths(published("a", right), published("b", better), predictions=how).pairs
    assert (pair.overall.a_only, pair.overall.b_only) == (6, 36)
    assert pair.overall.value == pytest.approx(10)
    assert pair.overall.low > 4
    assert set(pair.breakdowns) == {"variety", "language", "joshi", "script"}
    assert sum(cell.b_only for cell in pair.breakdowns["variety"].values()) == 36


def test_a_shorter_file_of_predictions_leaves_the_rest_unpaired(
    published: Callable[[str, np.ndarray], Path], tmp_path: Path
) -> None:
    right = np.ones(QUESTIONS, dtype=bool)
    how = Predictions("worldcuisines", tmp_path / "items.parquet")
    (pair,) = compare_paths(published("a", right), published("b", right[:200]), predictions=how).pairs
    assert (pair.overall.n, pair.a.unpaired, pair.a.unpaired_right, pair.b.unpaired) == (200, 100, 100, 0)
    assert len(pair.a.unpaired_ids) == 5


def test_the_command_prints_a_table_and_writes_what_it_is_told(runs: tuple[Path, Path], tmp_path: Path) -> None:
    page, table = tmp_path / "page.html", tmp_path / "rows.csv"
    arguments = ["bench", "compare", *map(str, runs), "--setting", "no_rag", "--setting-b", "oracle"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(page), "--out", str(table)])
    assert done.exit_code == 0
    shown = done.stdout.splitlines()
    assert [line.split()[0] for line in shown[1:3]] == ["A", "B"]
    assert len([line for line in shown if line.split()[:1] and line.split()[0] in ("all", "macro", "am", "yo")]) == 4
    told = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)["pairs"][0]
    with table.open() as stream:
        rows = {(row["dimension"], row["cell"]): row for row in csv.DictReader(stream)}
    assert float(rows["all", "all"]["value"]) == told["overall"]["value"]
    assert float(rows["variety", "yo"]["p_holm"]) == told["breakdowns"]["variety"]["yo"]["p_holm"]
    assert len(rows) == 1 + sum(len(cells) for cells in told["breakdowns"].values())
    assert "B clearly better" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--out", "page.txt"), UsageError),
        (("--out", "nowhere/page.html"), UsageError),
        (("--setting", "magic"), UsageError),
    ],
)
def test_bad_arguments_are_refused(runs: tuple[Path, Path], arguments: tuple[str, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        CliRunner().invoke(app, ["bench", "compare", *map(str, runs), *arguments], catch_exceptions=False)


def test_a_folder_that_is_no_run_is_bad_data(runs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadData, match="not a benchmark run"):
        compare_paths(runs[0], tmp_path / "empty")
    with pytest.raises(BadData, match="no such run folder or file of predictions"):
        compare_paths(runs[0], tmp_path / "nothing", predictions=Predictions("worldcuisines", None))


def test_what_others_wrote_is_escaped_and_a_warning_is_seen(tmp_path: Path) -> None:
    write_run(tmp_path / "a", markup=MARKUP, note="Random weights.")
    write_run(tmp_path / "b", markup=MARKUP, seed=9)
    compared = compare_paths(tmp_path / "a", tmp_path / "b", resamples=50)
    write_page(compared, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "Random weights." in page
    assert verdict(compared.pairs[0]).headline == "These numbers say nothing about a model's quality"
    assert RunPlan.read(tmp_path / "a").model.name.endswith(MARKUP)
