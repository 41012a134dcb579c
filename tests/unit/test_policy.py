"""The policy as a file and as a command: fitted on a run folder, shown, tampered with, applied to other runs."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_judgements, write_run
from typer.testing import CliRunner

from m4rag.bench.runs import PLAN
from m4rag.cli import app
from m4rag.errors import BadData, M4ragError, UsageError
from m4rag.manifests import Manifest
from m4rag.policy.fit import fit, fit_run
from m4rag.policy.model import Gate, Policy, decide, score_signals
from m4rag.policy.words import sentence, why_no_gate
from m4rag.schema import Answer, Question, Retrieved, Status
from m4rag.shards import read_folder, write_folder

SETTINGS = ("no_rag", "caption_query")
Scores = tuple[float, ...]


def write_answers(
    folder: Path, *, seed: int = 1, good: float = 0.95, bad: float = 0.05, before: float = 0.5, scored: bool = True
) -> None:
    """A run whose passages help (`good` right) where the best score is above 0.6, and else hurt (`bad` right)."""
    write_run(folder, settings=SETTINGS)
    chance = random.Random(seed)
    questions = {question.question_id: question for question in read_folder(folder / "questions", Question)}

    def redrawn(answer: Answer) -> Answer:
        question = questions[answer.question_id]
        best = chance.random()
        share = before if answer.setting == "no_rag" else good if best > 0.6 else bad
        right = chance.random() < share
        choice = question.answer_index if right else (question.answer_index + 1) % len(question.options)
        scores = [best, best - 0.1 * chance.random(), best - 0.2]
        shown = [Retrieved(chunk_id=hit.chunk_id, score=s) for hit, s in zip(answer.retrieved, scores, strict=False)]
        return answer.model_copy(
            update={"status": Status.OK, "choice": choice, "retrieved": tuple(shown) if scored else ()}
        )

    rewrite(folder, redrawn)


def rewrite(folder: Path, change: Callable[[Answer], Answer]) -> None:
    answers = [change(answer) for answer in read_folder(folder / "answers", Answer)]
    shutil.rmtree(folder / "answers")
    write_folder(folder / "answers", Answer, answers, Manifest(kind="answers", command="bench run"))


def change_plan(folder: Path, **changed: Any) -> None:
    plan = json.loads((folder / PLAN).read_text())
    (folder / PLAN).write_text(json.dumps({**plan, **changed}))


def command(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["policy", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_answers(tmp_path / "run")
    return tmp_path / "run"


def test_what_is_fitted_is_written_shown_and_applied(run: Path, tmp_path: Path) -> None:
    fitted = json.loads(command("fit", run, "--json"))
    file = Path(fitted["file"])
    assert file == run / "policy-caption_query.json"
    assert (fitted["retrieve"], fitted["gate"]["signal"]) == ("gated", "score")
    assert fitted["gate"]["threshold"] == pytest.approx(0.6, abs=0.1)
    assert (fitted["index_alias"], fitted["channel"], fitted["k"]) == ("m4rag_sample", "bm25", 3)
    assert json.loads(command("show", file, "--json")) == fitted

    write_answers(tmp_path / "other", seed=2)
    applied = json.loads(command("apply", file, tmp_path / "other", "--json"))
    assert applied["policy"] == fitted["digest"]
    assert applied["accuracy"]["value"] > max(applied["never"]["value"], applied["always"]["value"])
    assert applied["over_never"]["low"] > 0
    assert applied["retrieved"] == pytest.approx(40, abs=12)


def test_people_read_a_sentence_and_a_table(run: Path) -> None:
    text = command("fit", run)
    policy = Policy.read(run / "policy-caption_query.json")
    evidence = policy.evidence
    told = " ".join(text.split())
    assert told.startswith("Retrieve when the best score is at least 0.")
    assert f"{evidence.gated.value:.1f} % right" in told
    assert f"against {evidence.never.value:.1f} never and {evidence.always.value:.1f} always." in told
    assert "Not looked at: mean relevance by the judge, because the run is not judged." in told
    assert "oracle gate" in told
    assert "gated - never" in told
    assert told.endswith("policy-caption_query.json")
    assert " ".join(command("show", run / "policy-caption_query.json").split()) in told


def test_the_same_run_gives_the_same_policy_anywhere(run: Path, tmp_path: Path) -> None:
    command("fit", run)
    shutil.copytree(run, tmp_path / "moved")
    command("fit", tmp_path / "moved", "--setting", "caption_query", "--output", tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (run / "policy-caption_query.json").read_bytes()


def test_retrieval_that_hurts_everywhere_is_never_done(tmp_path: Path) -> None:
    write_answers(tmp_path, good=0.1, bad=0.1)
    policy = fit(tmp_path)
    assert (policy.retrieve, policy.gate) == ("never", None)
    assert sentence(policy).startswith("Never retrieve, it hurts this model")
    assert not decide(policy, {})


def test_retrieval_that_helps_everywhere_is_always_done(tmp_path: Path) -> None:
    write_answers(tmp_path, good=0.9, bad=0.9)
    policy = fit(tmp_path)
    assert (policy.retrieve, policy.gate) == ("always", None)
    assert sentence(policy).startswith("Always retrieve: ")
    assert str(why_no_gate(policy)).startswith("No gate: the best one is ")
    assert decide(policy, {})


def test_what_makes_no_difference_is_not_paid_for(tmp_path: Path) -> None:
    write_answers(tmp_path, good=0.5, bad=0.5)
    policy = fit(tmp_path)
    assert policy.retrieve == "never"
    assert "within noise" in sentence(policy)


@pytest.mark.parametrize(
    "change",
    [
        {"k": 4},
        {"model": "other"},
        {"gate": {"signal": "score", "threshold": 0.1, "judge": None}},
        {"retrieve": "always", "gate": None},
        {"digest": "0" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_file_that_was_changed_is_refused(run: Path, change: dict[str, Any]) -> None:
    command("fit", run)
    file = run / "policy-caption_query.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(BadData, match="changed since it was fitted") as caught:
        Policy.read(file)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


def test_a_better_number_in_the_evidence_is_a_change_too(run: Path) -> None:
    command("fit", run)
    file = run / "policy-caption_query.json"
    changed = json.loads(file.read_text())
    changed["evidence"]["gated"]["value"] += 1
    file.write_text(json.dumps(changed))
    with pytest.raises(BadData, match="changed since it was fitted"):
        Policy.read(file)


def test_what_is_no_policy_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"no policy file.*m4rag policy fit"):
        Policy.read(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text('{"retrieve": "sometimes"')
    with pytest.raises(BadData, match="not a policy"):
        Policy.read(tmp_path / "broken.json")


def test_a_judge_that_knew_no_answers_is_a_signal_and_another_is_not(run: Path, tmp_path: Path) -> None:
    write_judgements(run, with_answer=True)
    assert "was told the right answers" in fit(run).evidence.unavailable["judge"]
    shutil.rmtree(run / "judgements")
    write_judgements(run, with_answer=False)
    evidence = fit(run).evidence
    assert set(evidence.by_signal) == {"score", "margin", "judge"}
    assert not evidence.unavailable
    assert set(evidence.inputs) == {"questions", "answers", "judgements"}


def test_a_gate_on_the_judge_needs_the_same_judge(run: Path, tmp_path: Path) -> None:
    gate = Gate(signal="judge", threshold=2.5, judge="judge-32b")
    file = tmp_path / "policy.json"
    fit(run).model_copy(update={"gate": gate}).sealed().write(file)
    with pytest.raises(UsageError, match=r"'judge': the run is not judged.*--answer hidden"):
        command("apply", file, run)
    write_judgements(run, with_answer=False, model="judge-7b")
    with pytest.raises(UsageError, match="judged by judge-7b, the policy's threshold is of judge-32b"):
        command("apply", file, run)
    shutil.rmtree(run / "judgements")
    write_judgements(run, with_answer=False)
    applied = json.loads(command("apply", file, run, "--json"))
    assert 0 < applied["retrieved"] < 100


def test_the_questions_it_was_fitted_on_are_named_as_such(run: Path) -> None:
    command("fit", run)
    applied = json.loads(command("apply", run / "policy-caption_query.json", run, "--json"))
    assert any("fitted on" in note for note in applied["notes"])
    assert "too good" in command("apply", run / "policy-caption_query.json", run)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"k": 4}, "number of passages is 4, the policy's is 3"),
        ({"prompt_language": "yo"}, "prompt language is yo"),
        ({"prompts_digest": "0" * 64}, "prompts digest is 000000000000, the policy's is"),
    ],
)
def test_a_run_made_otherwise_does_not_compare(run: Path, changed: dict[str, Any], message: str) -> None:
    command("fit", run)
    change_plan(run, **changed)
    with pytest.raises(UsageError, match=message):
        command("apply", run / "policy-caption_query.json", run)


def notes_on(run: Path, file: Path) -> str:
    return " ".join(json.loads(command("apply", file, run, "--json"))["notes"])


def test_what_differs_and_still_compares_is_named_in_one_line(run: Path) -> None:
    command("fit", run)
    file = run / "policy-caption_query.json"
    assert "Not as" not in notes_on(run, file)
    index = json.loads((run / PLAN).read_text())["indexes"]["caption_query"]
    change_plan(run, option_order=7, indexes={"caption_query": {**index, "collection": "other__0123456789ab"}})
    rewrite(run, lambda answer: answer.model_copy(update={"context_language": "en"}))
    told = (
        "Not as where the policy was fitted: index other (there: m4rag_sample), language of the passages en (there: "
        "mixed), order of the options drawn with seed 7 (there: of the dataset)."
    )
    assert told in notes_on(run, file)
    assert told in " ".join(command("apply", file, run).split())


def test_native_prompts_of_other_languages_are_named_and_not_refused(run: Path) -> None:
    change_plan(run, prompt_language="native")
    command("fit", run)
    change_plan(run, prompts_digest="0" * 64)
    assert "prompts digest 000000000000 (there: " in notes_on(run, run / "policy-caption_query.json")


def test_a_run_of_another_model_does_not_compare(run: Path, tmp_path: Path) -> None:
    command("fit", run)
    write_run(tmp_path / "other", model="huge-vlm-72b", settings=SETTINGS)
    with pytest.raises(UsageError, match="model is huge-vlm-72b, the policy's is tiny-vlm-2b"):
        command("apply", run / "policy-caption_query.json", tmp_path / "other")


@pytest.mark.parametrize(
    ("settings", "arguments", "error", "message"),
    [
        (("oracle", "caption_query"), (), BadData, "no no_rag to compare with"),
        (("no_rag", "oracle"), (), UsageError, "0 settings of this run could be served"),
        (SETTINGS, ("--setting", "multimodal:x"), UsageError, r"no setting 'multimodal:x'.*This run has caption_query"),
        (("no_rag", "oracle", "caption_query"), ("--setting", "oracle"), UsageError, "oracle needs the right answer"),
        (SETTINGS, ("--setting", "no_rag"), UsageError, "no_rag searches nothing"),
    ],
)
def test_a_run_that_cannot_teach_a_policy_says_why(
    tmp_path: Path, settings: tuple[str, ...], arguments: tuple[str, ...], error: type[M4ragError], message: str
) -> None:
    write_run(tmp_path, settings=settings)
    with pytest.raises(error, match=message):
        command("fit", tmp_path, *arguments)


def test_every_setting_that_can_be_served_gets_its_policy(run: Path, tmp_path: Path) -> None:
    done = fit_run(run)
    assert (list(done.policies), done.refused) == (["caption_query"], {})
    assert Policy.read(run / "policy-caption_query.json") == done.policies["caption_query"] == fit(run)
    write_run(tmp_path / "oracle", settings=("no_rag", "oracle"))
    assert not fit_run(tmp_path / "oracle").policies


def test_a_sound_run_that_teaches_nothing_is_no_error_but_a_broken_one_is(tmp_path: Path) -> None:
    write_run(tmp_path / "blind", settings=("oracle", "caption_query"))
    assert fit_run(tmp_path / "blind").refused == {"caption_query": "this run has no no_rag to compare with"}
    assert not list((tmp_path / "blind").glob("policy-*"))
    write_answers(tmp_path / "broken")
    (tmp_path / "broken" / "answers" / "manifest.json").unlink()
    with pytest.raises(BadData, match="has not finished"):
        fit_run(tmp_path / "broken")


def test_the_pipeline_step_hands_on_the_run_with_its_policies(run: Path, tmp_path: Path) -> None:
    from kfp import dsl

    from components.policy.fit_policy import fit_policy

    given = dsl.Artifact(uri=str(run), metadata={"digest": "d", "questions": 180})
    fitted = dsl.Artifact(uri=str(tmp_path / "fitted"))
    fit_policy.python_func(run=given, fitted=fitted)
    digest = Policy.read(tmp_path / "fitted" / "policy-caption_query.json").digest
    assert fitted.metadata == {
        "digest": "d",
        "questions": 180,
        "policies": {"caption_query": digest},
        "not_fitted": {},
    }
    assert digest in (tmp_path / "fitted" / "report.html").read_text()
    assert not list(run.glob("policy-*")), "the input of a step is left as it was"


def test_answers_without_scores_teach_nothing(tmp_path: Path) -> None:
    write_answers(tmp_path, scored=False)
    with pytest.raises(BadData, match="no passage was retrieved in caption_query"):
        fit(tmp_path)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="not a benchmark run"):
        command("fit", tmp_path)


def test_numbers_of_a_random_model_carry_their_warning(tmp_path: Path) -> None:
    write_run(tmp_path, note="random weights", settings=SETTINGS)
    assert "random weights" in command("fit", tmp_path)


def test_a_gate_decides_by_its_signal_alone(run: Path) -> None:
    policy = fit(run).model_copy(update={"gate": Gate(signal="score", threshold=0.5)})
    assert decide(policy, {"score": 0.5})
    assert not decide(policy, {"score": 0.4999, "margin": 9.0})
    assert not decide(policy, {"score": None})
    assert not decide(policy, {"score": math.nan})
    with pytest.raises(UsageError, match="needs the signal 'score'"):
        decide(policy, {"margin": 0.9})


@pytest.mark.parametrize(
    ("scores", "score", "margin"), [((), None, None), ((0.7,), 0.7, None), ((0.75, 0.7, 0.5), 0.75, 0.25)]
)
def test_signals_of_the_scores(scores: Scores, score: float | None, margin: float | None) -> None:
    assert score_signals(scores) == {"score": score, "margin": margin}
