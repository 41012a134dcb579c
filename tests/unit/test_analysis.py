"""The analysis of runs: known rates come back, the identity holds, and verdicts claim what they may."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import write_judgements, write_run
from typer.testing import CliRunner

from m4rag.bench.analysis import Analysis, RunAnalysis, SettingEffect, analyse
from m4rag.bench.compare import Answered
from m4rag.bench.findings import finding
from m4rag.bench.joined import read_scores
from m4rag.bench.paired import Difference
from m4rag.bench.rates import kept_and_mended
from m4rag.bench.report import write_report
from m4rag.bench.runs import ModelIdentity, RunPlan
from m4rag.bench.scale import Scale, Sized, parse_size, profile, sizes_of
from m4rag.bench.scoring import everything, score
from m4rag.bench.statistics import Estimate, partition
from m4rag.bench.verdicts import calibration, joint_verdicts, languages, relevance, run_verdicts, scale
from m4rag.cli import app
from m4rag.errors import BadData, UsageError
from m4rag.manifests import Manifest, digest, rows_digest
from m4rag.schema import Answer, Question, Status
from m4rag.shards import write_folder

CODES = ("en", "yo", "th", "am")
EACH = 4
"""Questions about one image, one a language."""


def known_run(
    folder: Path,
    rates: Mapping[str, tuple[float, float]],
    *,
    model: str = "vlm-7B",
    dataset: str = "sample",
    accuracy: float = 0.5,
    images: int = 150,
    seed: int = 0,
    note: str | None = None,
    languages: tuple[str, str] = ("en", "en"),
) -> Path:
    """A run whose settings have known retention and correction.

    Args:
        folder: Where it is written.
        rates: Setting to retention and correction, 0 to 1.
        model: Served model name.
        dataset: Dataset name.
        accuracy: Of `no_rag`; it varies by image.
        images: Images, each asked about in four languages.
        seed: Of the answers.
        note: Warning about the model.
        languages: Of the instructions and of the context.
    """
    random = np.random.default_rng(seed)
    questions = [
        Question(
            question_id=f"{image}-{code}",
            dataset=dataset,
            language=code,
            question="?",
            options=("a", "b", "c", "d"),
            answer_index=image % 4,
            group=str(image),
        )
        for image in range(images)
        for code in CODES
    ]
    ease = random.beta(4 * accuracy, 4 * (1 - accuracy), images)
    before = random.random(len(questions)) < np.repeat(ease, EACH)
    right = {"no_rag": before}
    for setting, (kept, mended) in rates.items():
        right[setting] = random.random(len(questions)) < np.where(before, kept, mended)
    identity = ModelIdentity(name=model, engine="vllm", root=model, note=note)
    plan = RunPlan(
        dataset=dataset,
        questions_digest=rows_digest(questions),
        n_questions=len(questions),
        settings=tuple(right),
        images="all",
        model=identity,
        prompts_digest=digest("prompts"),
        decoding={"seed": seed},
        k=1,
    )
    answers = [
        Answer(
            question_id=question.question_id,
            setting=setting,
            model=model,
            prompt_language=languages[0],
            context_language="" if setting == "no_rag" else languages[1],
            choice=question.answer_index if good else (question.answer_index + 1) % 4,
            status=Status.OK,
            raw="",
        )
        for setting, flags in right.items()
        for question, good in zip(questions, flags, strict=True)
    ]
    folder.mkdir(parents=True)
    plan.write(folder)
    for name, row, rows in (("questions", Question, questions), ("answers", Answer, answers)):
        write_folder(folder / name, row, rows, Manifest(kind=name, command="test", config={"run": plan.digest}))
    (folder / "scores.json").write_text(score(questions, answers, resamples=200).model_dump_json())
    return folder


# Rates.


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5), st.sampled_from("abc")), min_size=1))
@settings(max_examples=80)
def test_accuracy_is_what_is_kept_plus_what_is_mended(rows: list[tuple[bool, bool, int, str]]) -> None:
    before, after, images, names = (np.array(column) for column in zip(*rows, strict=True))
    groups, cells = np.unique(images, return_inverse=True)[1], partition(names)
    found = kept_and_mended(before, after, groups, cells, resamples=20)
    assert set(found) == set(names)
    for code, label in enumerate(cells.labels):
        mine = cells.codes == code
        kept, mended = found[label].retention, found[label].correction
        assert (kept.n if kept else 0) == before[mine].sum()
        assert (mended.n if mended else 0) == (~before[mine]).sum()
        # In whole answers, so exactly: retention * acc_0 + correction * (1 - acc_0) = acc_rag.
        counts = [round(rate.value * rate.n / 100, 9) for rate in (kept, mended) if rate is not None]
        assert sum(counts) == after[mine].sum()
        for rate in (kept, mended):
            assert rate is None or 0 <= rate.low <= rate.value <= rate.high <= 100


def test_intervals_of_both_rates_hold_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(4)
    images, truth, held = 60, (0.85, 0.35), np.zeros((400, 2), dtype=bool)
    groups = np.repeat(np.arange(images), EACH)
    for row in held:
        before = random.random(len(groups)) < np.repeat(random.beta(2, 2, images), EACH)
        # What context does is alike for the questions of one image: beta distributed around the truth.
        chances = [np.repeat(random.beta(6 * rate, 6 * (1 - rate), images), EACH) for rate in truth]
        after = random.random(len(groups)) < np.where(before, *chances)
        found = kept_and_mended(before, after, groups, everything(len(groups)), resamples=400)["all"]
        for place, rate in enumerate((found.retention, found.correction)):
            assert rate is not None
            row[place] = rate.low <= 100 * truth[place] <= rate.high
    assert np.all((held.mean(axis=0) > 0.92) & (held.mean(axis=0) < 0.985)), held.mean(axis=0)


# Runs on disk.


@pytest.mark.parametrize("seed", range(3))
def test_a_run_of_known_rates_is_analysed_as_such(tmp_path: Path, seed: int) -> None:
    known = {"oracle": (0.97, 0.85), "caption_query": (0.7, 0.1)}
    (run,) = analyse([known_run(tmp_path / "run", known, seed=seed)], resamples=500).runs
    assert [row.setting for row in run.settings] == ["oracle", "caption_query"]
    for row in run.settings:
        kept, mended = row.retention, row.correction
        assert kept is not None
        assert mended is not None
        for rate, truth in zip((kept, mended), known[row.setting], strict=True):
            assert rate.low - 1 <= 100 * truth <= rate.high + 1
        assert kept.value * row.effect.a / 100 + mended.value * (1 - row.effect.a / 100) == pytest.approx(row.effect.b)
        assert set(row.breakdowns) == {"variety", "language", "joshi", "script"}
        assert sum(cell.n for cell in row.breakdowns["script"].values()) == row.effect.n
    verdicts = {(found.about, found.says) for found in run_verdicts(run)}
    assert {("calibration", "room"), ("retrieval", "hurts"), ("relevance", "unknown")} <= verdicts


def test_the_report_and_the_analysis_say_the_same(tmp_path: Path) -> None:
    plan = write_run(tmp_path)
    (run,) = analyse([tmp_path]).runs
    scores = {row.setting: row.effect for row in read_scores(tmp_path).settings}
    assert {row.setting: row.effect for row in run.settings} == {k: v for k, v in scores.items() if v is not None}
    searched = next(row for row in run.settings if row.setting == "caption_query")
    assert searched.effect.words in finding(plan, read_scores(tmp_path)).support
    page = write_report(tmp_path).read_text()
    for verdict in run_verdicts(run):
        assert verdict.text.split(":")[0] in page


def test_relevance_is_that_of_the_report(tmp_path: Path) -> None:
    write_run(tmp_path)
    judged = write_judgements(tmp_path)
    (run,) = analyse([tmp_path], resamples=200).runs
    assert run.relevance == judged
    found = relevance(run)
    assert judged.whole is not None
    for part in judged.whole.summary:
        if part.effect is not None:
            assert f"{part.label}: {part.effect.words}" in found.text
    assert "The judge knew the right answers" in found.text


def test_a_judge_that_cannot_tell_gold_passages_decides_nothing(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_judgements(tmp_path, blind=True)
    (run,) = analyse([tmp_path], resamples=200).runs
    found = relevance(run)
    assert found.says == "unknown"
    assert "does not tell gold passages from others better than a coin (AUC 0.5" in found.text


def test_runs_that_compare_nothing_say_so(tmp_path: Path) -> None:
    write_run(tmp_path / "without", settings=("oracle",))
    write_run(tmp_path / "alone", settings=("text_only", "no_rag"))
    write_run(tmp_path / "noted", note="Random weights.")
    for name, words in (("without", "no_rag is missing"), ("alone", "a setting with context"), ("noted", "Random")):
        (run,) = analyse([tmp_path / name], resamples=50).runs
        (verdict,) = run_verdicts(run)
        assert verdict.says == "unknown"
        assert words in verdict.text


# Verdicts at their boundaries.


def change(value: float, low: float, high: float, p: float = 0.001) -> Difference:
    return Difference(
        a=50, b=50 + value, value=value, low=low, high=high, n=99, groups=33, a_only=1, b_only=2, mcnemar=p, p=p,
        p_holm=p, detectable=1.0,
    )  # fmt: skip


def effect(setting: str, found: Difference, **cells: dict[str, Difference]) -> SettingEffect:
    macro = Estimate(value=0, low=0, high=0, n=1, groups=1)
    return SettingEffect(
        setting=setting, effect=found, macro=macro, retention=None, correction=None, breakdowns={**cells}
    )


@pytest.mark.parametrize(
    ("found", "says", "words"),
    [
        (change(4.1, 2.0, 6.3), "little", "oracle - no_rag = +4.1 [+2.0, +6.3] points: retrieval has little to give"),
        (change(4.1, -0.1, 9.9, p=0.06), "little", "little to give"),
        (change(5.0, 2.0, 10.0), "something", "cannot tell whether 10 points or more"),
        (change(15.0, 10.0, 20.0), "room", "retrieval has room to help"),
        (change(15.0, 9.9, 20.0), "something", "something to give"),
        (change(15.0, 10.0, 20.0, p=0.05), "unclear", "cannot tell whether retrieval has anything to give"),
        (change(5.0, -2.0, 12.0, p=0.2), "unclear", "cannot tell"),
        (change(-4.0, -7.0, -1.0), "hurts", "the gold document itself hurts"),
        (change(-4.0, -8.0, 0.0, p=0.04), "little", "little to give"),
    ],
)  # fmt: skip
def test_calibration_claims_what_the_interval_supports(found: Difference, says: str, words: str) -> None:
    verdict = calibration(effect("oracle", found))
    assert verdict.says == says
    assert words in verdict.text


def test_calibration_without_the_oracle_is_not_known() -> None:
    assert calibration(None).says == "unknown"


@pytest.mark.parametrize(
    ("below", "above", "says", "words"),
    [
        (change(-9, -15, -3), change(30, 20, 40), "mixed", ("Leaving out context below 2 pays", "above 4 pays")),
        (change(9, 3, 15), change(30, 20, 40), "helps", ("below 2 would cost right answers",)),
        (change(-9, -19, 1, p=0.07), None, "unclear", ("Nothing shows that leaving", "Too little context")),
        (change(-9, -15, -3), change(-9, -15, -3), "hurts", ("Even context above 4 hurts",)),
        (None, change(1, -5, 7, p=0.9), "unclear", ("Too little context was judged below 2", "Nothing shows")),
    ],
)  # fmt: skip
def test_cuts_are_supported_by_what_context_does_beyond_them(
    tmp_path: Path, below: Difference | None, above: Difference | None, says: str, words: tuple[str, ...]
) -> None:
    write_run(tmp_path)
    write_judgements(tmp_path, with_answer=False)
    (run,) = analyse([tmp_path], resamples=50).runs
    assert run.relevance is not None
    assert run.relevance.pooled is not None
    bands = tuple(
        part.model_copy(update={"effect": found})
        for part, found in zip(run.relevance.pooled.summary, (below, None, above), strict=True)
    )
    pooled = run.relevance.pooled.model_copy(update={"summary": bands})
    judged = run.model_copy(update={"relevance": run.relevance.model_copy(update={"pooled": pooled})})
    verdict = relevance(judged)
    assert verdict.says == says
    assert all(part in verdict.text for part in words)
    assert "The judge knew" not in verdict.text


def test_languages_are_counted_where_they_are_clear() -> None:
    cells = {"en": change(-9, -15, -3), "yo": change(9, 3, 15), "th": change(9, 3, 15, p=0.05), "am": change(12, 2, 20)}
    verdict = languages(effect("oracle", change(1, 0, 2), variety=cells, joshi={"2": cells["yo"], "5": cells["en"]}))
    assert verdict is not None
    assert verdict.says == "mixed"
    assert verdict.text == (
        "oracle helps in 2 (am, yo) of 4 varieties and hurts in 1 (en); in 1 there is no clear difference. "
        "By resource class it helps in 2 and hurts in 5."
    )
    assert languages(effect("oracle", change(1, 0, 2), variety={"en": cells["en"]})) is None


# Scale.


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Qwen2.5-VL-7B-Instruct", 7),
        ("Qwen3-VL-30B-A3B-Thinking", 30),
        ("google/gemma-3-4b-it", 4),
        ("SmolVLM-256M", 0.256),
        ("llava-1.6-7b-hf", 7),
        ("vlm_0.5B", 0.5),
        ("Mixtral-8x7B", None),
        ("gemma-3n-E4B", None),
        ("distilled-72B-to-7B", None),
        ("gpt", None),
    ],
)
def test_sizes_are_read_from_names(name: str, size: float | None) -> None:
    assert parse_size(name) == size


def test_a_size_that_nobody_knows_is_asked_for() -> None:
    with pytest.raises(UsageError, match=r"size of model 'gpt' is not in its name. Give it: --size gpt=7B"):
        sizes_of({"gpt": "hub/gpt", "a-7B": ""}, {})
    assert sizes_of({"gpt": "hub/gpt-3B", "a-7B": ""}, {"a-7B": 8}) == {"gpt": 3, "a-7B": 8}
    with pytest.raises(UsageError, match="no run of a model 'other'"):
        sizes_of({"gpt": ""}, {"other": 3})


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Models of 2, 8 and 32 billion: what caption_query gives falls from about +15 by 10 points each time."""
    folder = tmp_path_factory.mktemp("sizes")
    made = {"vlm-32B": (0.7, 0.2), "vlm-2B": (0.9, 0.4), "vlm-8B": (0.8, 0.3)}
    return [
        known_run(folder / model, {"oracle": (0.95, 0.85), "caption_query": rates}, model=model, seed=place)
        for place, (model, rates) in enumerate(made.items())
    ]


def test_a_trend_over_size_has_the_slope_it_was_made_with(sizes: list[Path]) -> None:
    found = {trend.setting: trend for trend in analyse(sizes, resamples=500).scale.trends}
    searched = found["caption_query"]
    assert [point.size for point in searched.points] == [2, 8, 32]
    assert searched.slope is not None
    assert searched.slope.low < -5 < searched.slope.high < 0
    assert searched.slope.high - searched.slope.low < 6
    texts = {verdict.text.split()[0]: verdict for verdict in scale(Scale(trends=tuple(found.values())))}
    assert texts["caption_query"].says == "falls"
    assert "the larger of these models gain less from it" in texts["caption_query"].text
    assert texts["oracle"].says == "unclear"


def test_the_interval_of_a_slope_holds_the_truth() -> None:
    random = np.random.default_rng(5)
    images, held = 80, []
    groups = np.repeat(np.arange(images), EACH)
    ids = [str(row) for row in range(len(groups))]
    questions = pa.table(
        {"question_id": ids, "language": ["en"] * len(ids), "prompt_type": [""] * len(ids)}
        | {"group": [f"{group:03}" for group in groups], "gold_text": ["a"] * len(ids)}
    )
    for _ in range(150):
        ease = np.repeat(random.beta(2, 2, images), EACH)
        runs = []
        for size, kept, mended in ((1.0, 0.9, 0.4), (4.0, 0.8, 0.3), (16.0, 0.7, 0.2)):
            before = random.random(len(groups)) < ease
            after = random.random(len(groups)) < np.where(before, kept, mended)
            sides = {
                name: Answered("", name, "", None, "d", questions, right, right)
                for name, right in (("no_rag", before), ("oracle", after))
            }
            runs.append(Sized(str(size), str(size), size, sides))
        slope = profile(runs, resamples=300).trends[0].slope
        assert slope is not None
        held.append(slope.low <= -5 <= slope.high)  # accuracy 0.5, so 10 points in two doublings
    assert 0.9 <= np.mean(held) <= 0.995, np.mean(held)


def test_one_run_says_nothing_about_scale(sizes: list[Path], tmp_path: Path) -> None:
    (verdict,) = joint_verdicts(analyse(sizes[:1], resamples=50))
    assert (verdict.about, verdict.says) == ("scale", "unknown")
    assert verdict.text == "One model says nothing about scale; name runs of models of several sizes."
    same = known_run(tmp_path / "same", {"oracle": (0.9, 0.4)}, model="other-32B")
    assert "one size (32B)" in analyse([sizes[0], same], resamples=50).scale.reason
    noted = known_run(tmp_path / "noted", {"oracle": (0.9, 0.4)}, model="noted-1B", note="Random weights.")
    assert "noted-1B: Random weights." in analyse([sizes[0], noted], resamples=50).scale.reason
    elsewhere = known_run(tmp_path / "elsewhere", {"oracle": (0.9, 0.4)}, model="vlm-1B", dataset="other")
    assert "several datasets (other, sample)" in analyse([sizes[0], elsewhere], resamples=50).scale.reason
    without = known_run(tmp_path / "without", {}, model="vlm-1B")
    assert "no setting with context in common" in analyse([sizes[0], without], resamples=50).scale.reason


def test_two_models_are_a_difference_and_questions_are_those_that_both_were_asked(
    sizes: list[Path], tmp_path: Path
) -> None:
    smaller = known_run(tmp_path / "few", {"oracle": (0.9, 0.4)}, model="vlm-1B", images=40)
    analysis = analyse([sizes[0], smaller], resamples=100)
    (trend,) = analysis.scale.trends
    assert {point.effect.n for point in trend.points} == {40 * EACH}
    assert joint_verdicts(analysis)[0].text.endswith("Two models are a difference, not a trend.")


# Languages of instructions and context.


def test_runs_that_differ_in_a_language_are_compared(tmp_path: Path) -> None:
    one = known_run(tmp_path / "one", {"oracle": (0.99, 0.9)})
    other = known_run(tmp_path / "other", {"oracle": (0.6, 0.3)}, languages=("en", "native"))
    analysis = analyse([one, other], resamples=100)
    (found,) = analysis.languages
    assert (found.setting, found.prompt_languages, found.context_languages) == (
        "oracle",
        ("en", "en"),
        ("en", "native"),
    )
    first = joint_verdicts(analysis)[0]
    assert (first.about, first.says) == ("prompt", "hurts")
    assert first.text.startswith("vlm-7B, oracle, context in native instead of en: ")
    same = known_run(tmp_path / "same", {"oracle": (0.6, 0.3)}, seed=3)
    assert analyse([one, same], resamples=50).languages == ()


# The command.


def test_the_command_prints_tables_and_sentences(sizes: list[Path], tmp_path: Path) -> None:
    write_run(tmp_path / "judged")
    write_judgements(tmp_path / "judged")
    done = CliRunner().invoke(app, ["bench", "analyse", str(tmp_path / "judged")])
    assert done.exit_code == 0, done.output
    shown = " ".join(done.stdout.split())
    for words in (
        "what context changes",
        "by judged relevance: all settings",
        "change by language",
        "how much retrieval can give: oracle - no_rag = +",
        "One model says nothing about scale",
    ):
        assert words in shown
    several = " ".join(CliRunner().invoke(app, ["bench", "analyse", *map(str, sizes)]).stdout.split())
    assert "for each doubling" in several
    assert several.index("vlm-2B 2B") < several.index("vlm-8B 8B") < several.index("vlm-32B 32B")


def test_json_is_the_analysis_with_its_verdicts(sizes: list[Path]) -> None:
    done = CliRunner().invoke(app, ["bench", "analyse", *map(str, sizes[:2]), "--size", "vlm-32B=40B", "--json"])
    told = json.loads(done.stdout)
    assert {verdict["about"] for verdict in told["verdicts"]} == {"scale"}
    assert told["scale"]["trends"][0]["points"][1]["size"] == 40
    for run in told["runs"]:
        verdicts = run.pop("verdicts")
        assert {"calibration", "retrieval", "languages"} <= {verdict["about"] for verdict in verdicts}
        RunAnalysis.model_validate(run)
    del told["verdicts"]
    assert Analysis.model_validate(told) == analyse(sizes[:2], {"vlm-32B": 40.0})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--size", "7B"), UsageError, "'7B' is not MODEL=SIZE. Write 7B"),
        (("--size", "vlm-32B=big"), UsageError, "is not MODEL=SIZE"),
        (("--size", "other=7B"), UsageError, "no run of a model 'other'"),
        (("nowhere",), BadData, "not a benchmark run"),
    ],
)
def test_bad_arguments_are_refused(
    sizes: list[Path], arguments: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        CliRunner().invoke(app, ["bench", "analyse", str(sizes[0]), *arguments], catch_exceptions=False)


def test_a_run_named_twice_and_one_that_is_not_finished_are_refused(sizes: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="named twice"):
        analyse([sizes[0], sizes[0]])
    shutil.copytree(sizes[0], tmp_path / "run")
    (tmp_path / "run" / "answers" / "manifest.json").unlink()
    with pytest.raises(BadData, match="has not finished"):
        analyse([tmp_path / "run"])
