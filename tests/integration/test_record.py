"""The record in real MLflow: SQLite here, and a server on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import MARKUP, write_judgements, write_run

from m4rag.bench.runs import RunPlan
from m4rag.errors import BadData, Unavailable, UsageError
from m4rag.manifests import Manifest
from m4rag.policy.fit import fit
from m4rag.policy.model import Policy
from m4rag.policy.words import sentence
from m4rag.registry.record import RUN_DIGEST, record
from m4rag.registry.scalars import metric_key
from m4rag.schema import Answer
from m4rag.shards import read_folder, write_folder
from m4rag.vlm import prompts

TABLE_NAMES = {"settings", "answers", "passages", "per_question", "by_language", "breakdowns"}


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SQLite store that several tests share: its creation takes seconds. Each test takes its own experiment."""
    return f"sqlite:///{tmp_path_factory.mktemp('home') / 'deep' / 'mlflow.db'}"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "run")
    return tmp_path / "run"


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs_of(uri: str, experiment: str) -> list[Any]:
    connected = client(uri)
    return list(connected.search_runs([connected.get_experiment_by_name(experiment).experiment_id]))


def test_a_run_is_recorded_with_everything_that_explains_its_numbers(store: str, run: Path) -> None:
    import pyarrow.parquet as pq

    plan = RunPlan.read(run)
    recorded = record(run, tracking_uri=store, experiment="whole")
    held = client(store).get_run(recorded.run_id)
    assert recorded.created
    assert held.info.status == "FINISHED"

    assert len(held.data.metrics) == recorded.scalars <= 60
    scores = json.loads((run / "scores.json").read_text())
    for row in scores["settings"]:
        assert held.data.metrics[f"accuracy/{row['setting']}"] == row["accuracy"]["value"]
    assert held.data.params["model.weights_digest"] == plan.model.weights_digest
    assert held.data.params["index.caption_query.digest"] == plan.indexes["caption_query"].digest
    assert held.data.params["decoding.max_tokens"] == "128"
    assert held.data.tags["m4rag.index_digest"] == plan.indexes["caption_query"].digest
    assert held.data.tags["m4rag.command"] == plan.command
    assert "m4rag.warning" not in held.data.tags

    inputs = {
        item.dataset.name: (item.dataset.digest, {t.key: t.value for t in item.tags})
        for item in held.inputs.dataset_inputs
    }
    assert inputs["sample"] == (
        plan.questions_digest[:36],
        {"mlflow.data.context": "evaluation", "sha256": plan.questions_digest},
    )
    assert inputs["sample/concepts.toml"][1]["sha256"] == plan.inputs["sample/concepts.toml"]
    assert inputs["m4rag_sample__0123456789ab"][1]["mlflow.data.context"] == "retrieval-index"

    folder = Path(client(store).download_artifacts(recorded.run_id, ""))
    assert (folder / "report.html").read_bytes() == (run / "report.html").read_bytes()
    assert {path.stem for path in (folder / "tables").iterdir()} == TABLE_NAMES
    questions = pq.read_table(folder / "tables" / "per_question.parquet")
    assert questions.num_rows == plan.n_questions
    hits = sum(questions["caption_query.right"].to_pylist())
    assert 100 * hits / plan.n_questions == pytest.approx(held.data.metrics["accuracy/caption_query"])


def test_recording_again_finds_the_run_and_adds_nothing(store: str, run: Path) -> None:
    first = record(run, tracking_uri=store, experiment="again")
    second = record(run, tracking_uri=store, experiment="again")
    assert (second.run_id, second.created) == (first.run_id, False)
    assert len(runs_of(store, "again")) == 1
    connected = client(store)
    assert len(connected.get_metric_history(first.run_id, "accuracy/no_rag")) == 1
    assert len(connected.get_run(first.run_id).inputs.dataset_inputs) == 3


def test_a_run_that_was_scored_again_is_updated_even_to_a_lower_number(store: str, run: Path) -> None:
    first = record(run, tracking_uri=store, experiment="rescored")
    scores = json.loads((run / "scores.json").read_text())
    scores["settings"][1]["accuracy"]["value"] = 1.25
    (run / "scores.json").write_text(json.dumps(scores))
    second = record(run, tracking_uri=store, experiment="rescored")
    assert second.run_id == first.run_id
    assert client(store).get_run(first.run_id).data.metrics["accuracy/no_rag"] == 1.25


def test_a_run_that_is_judged_later_or_by_another_judge_is_the_same_run(store: str, run: Path) -> None:
    first = record(run, tracking_uri=store, experiment="judged")
    relevance = write_judgements(run)
    second = record(run, tracking_uri=store, experiment="judged")
    held = client(store).get_run(first.run_id)
    assert (second.run_id, second.created) == (first.run_id, False)
    assert relevance.auc is not None
    assert held.data.metrics["judge_auc"] == relevance.auc.value
    assert len(held.data.metrics) == second.scalars
    assert {key for key in held.data.metrics if key.startswith("retention_")}
    assert (held.data.tags["m4rag.judge"], held.data.tags["m4rag.judge.with_answer"]) == ("judge-32b", "yes")
    assert "Does relevance decide?" in held.data.tags["mlflow.note.content"]
    folder = Path(client(store).download_artifacts(first.run_id, ""))
    assert (folder / "relevance.json").read_bytes() == (run / "relevance.json").read_bytes()
    assert {path.stem for path in (folder / "tables").iterdir()} == TABLE_NAMES | {"judgements", "relevance"}

    shutil.rmtree(run / "judgements")
    write_judgements(run, model="other-judge", seed=8)
    assert record(run, tracking_uri=store, experiment="judged").run_id == first.run_id
    assert client(store).get_run(first.run_id).data.tags["m4rag.judge"] == "other-judge"


def test_policies_are_artifacts_with_their_digests_as_tags(store: str, run: Path) -> None:
    record(run, tracking_uri=store, experiment="policies")
    policy = fit(run)
    file = policy.file_in(run)
    policy.write(file)
    recorded = record(run, tracking_uri=store, experiment="policies")
    held = client(store).get_run(recorded.run_id)
    assert len(runs_of(store, "policies")) == 1
    assert held.data.tags["m4rag.policy_digest.caption_query"] == policy.digest
    assert sentence(policy) in held.data.tags["mlflow.note.content"]
    folder = Path(client(store).download_artifacts(recorded.run_id, ""))
    assert Policy.read(folder / "policies" / file.name) == policy
    assert policy.digest in (folder / "report.html").read_text()

    file.write_text(file.read_text().replace('"k": 3', '"k": 4'))
    with pytest.raises(BadData, match="changed since it was fitted"):
        record(run, tracking_uri=store, experiment="policies")


def test_other_answers_to_the_same_plan_are_another_run(store: str, run: Path) -> None:
    first = record(run, tracking_uri=store, experiment="executions")
    for folder in ("questions", "passages", "answers"):
        shutil.rmtree(run / folder)
    write_run(run, seed=8)
    second = record(run, tracking_uri=store, experiment="executions")
    assert first.run_id != second.run_id
    assert len({held.data.tags["m4rag.plan_digest"] for held in runs_of(store, "executions")}) == 1


def test_of_two_runs_that_were_opened_at_once_the_lowest_is_used_and_the_other_marked(store: str, run: Path) -> None:
    first = record(run, tracking_uri=store, experiment="twins")
    connected = client(store)
    twin = connected.create_run(
        first.experiment_id,
        start_time=connected.get_run(first.run_id).info.start_time + 1,
        tags={RUN_DIGEST: first.run_digest},
    )
    assert record(run, tracking_uri=store, experiment="twins").run_id == first.run_id
    assert connected.get_run(twin.info.run_id).data.tags["m4rag.superseded_by"] == first.run_id


def test_files_go_beside_the_database_and_never_into_the_working_directory(
    store: str, run: Path, tmp_path: Path
) -> None:
    recorded = record(run, tracking_uri=store, experiment="places")
    root = client(store).get_run(recorded.run_id).info.artifact_uri
    assert root.startswith((Path(store.removeprefix("sqlite:///")).parent / "mlflow-artifacts").as_uri())
    assert list((tmp_path / "cwd").iterdir()) == []


def test_a_pipeline_tasks_own_run_is_used_and_left_open(
    store: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected = client(store)
    parent = connected.create_run(connected.create_experiment("kfp"), tags={"kfp.pipeline_run_id": "r1"})
    monkeypatch.setenv("MLFLOW_RUN_ID", parent.info.run_id)
    recorded = record(run, tracking_uri=store, experiment="ignored")
    again = record(run, tracking_uri=store, experiment="ignored")
    held = connected.get_run(parent.info.run_id)
    assert recorded.run_id == again.run_id == parent.info.run_id
    assert held.info.status == "RUNNING"
    assert held.data.tags["kfp.pipeline_run_id"] == "r1"
    assert held.data.metrics["questions"] == 180
    assert connected.get_experiment_by_name("ignored") is None

    write_run(tmp_path / "other", settings=("no_rag",))
    with pytest.raises(UsageError, match="already holds another benchmark run"):
        record(tmp_path / "other", tracking_uri=store, experiment="ignored")


def test_warnings_stand_in_the_record(store: str, tmp_path: Path) -> None:
    write_run(tmp_path / "run", note="Random weights: accuracy is chance.", images="none", markup=MARKUP)
    recorded = record(tmp_path / "run", tracking_uri=store, experiment="warnings")
    tags = client(store).get_run(recorded.run_id).data.tags
    assert tags["m4rag.warning"] == "Random weights: accuracy is chance."
    assert tags["m4rag.baseline"] == "text-only"


def test_a_deleted_experiment_is_named(store: str, run: Path) -> None:
    connected = client(store)
    connected.delete_experiment(connected.create_experiment("gone"))
    with pytest.raises(UsageError, match="gone: the experiment was deleted"):
        record(run, tracking_uri=store, experiment="gone")


def test_a_plain_folder_is_refused_with_the_way_out(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sqlite:////absolute/path"):
        record(run, tracking_uri=str(tmp_path / "mlruns"), experiment="x")


def test_an_incomplete_run_never_reaches_the_store(run: Path, tmp_path: Path) -> None:
    (run / "scores.json").unlink()
    with pytest.raises(BadData, match="not scored"):
        record(run, tracking_uri=f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}", experiment="x")
    assert not (tmp_path / "new").exists()


def test_a_server_that_is_not_there_is_one_clear_line_and_costs_nothing(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*.parquet")}
    with pytest.raises(Unavailable) as caught:
        record(run, tracking_uri=f"http://someone:secret@127.0.0.1:{free_port()}", experiment="x")
    text = str(caught.value)
    assert "does not answer (Connection refused)" in text
    assert f"m4rag bench record {run}" in text
    assert "secret" not in text
    assert "\n" not in text
    assert {path: path.read_bytes() for path in run.rglob("*.parquet")} == before


RECORD = """
import sys
from pathlib import Path
from m4rag.registry.record import record
recorded = record(Path(sys.argv[1]), tracking_uri=sys.argv[2], experiment="first")
Path(sys.argv[3]).write_text(recorded.run_id)
"""


def test_parallel_first_uses_of_a_new_store_make_one_quiet_run(run: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'fresh' / 'mlflow.db'}"
    # The report is there already, as after `bench run`; otherwise each of them would write it.
    from m4rag.bench.report import write_report

    write_report(run)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RECORD, str(run), store, str(tmp_path / f"id-{number}")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(3)
    ]
    printed = [process.communicate(timeout=240)[0] for process in processes]
    assert printed == ["", "", ""]
    assert len({(tmp_path / f"id-{number}").read_text() for number in range(3)}) == 1


# A property of MLflow's own validation: whatever a setting is called, its key is taken or refused by us first.
@settings(deadline=None, max_examples=300)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=3))
def test_mlflow_takes_every_key_that_is_made(parts: list[str]) -> None:
    from mlflow.utils.validation import _validate_metric_name

    try:
        key = metric_key(*parts)
    except BadData:
        return
    _validate_metric_name(key)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A real `mlflow server` on loopback that can be stopped and started again on the same store."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.folder = folder
        self.backend = backend
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", self.backend, "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return
            except OSError:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.2)
        raise AssertionError((self.folder / "server.log").read_text())

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, 15)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, 9)
                self.process.wait(20)

    def artifact(self, run_id: str, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}/get-artifact?path={path}&run_uuid={run_id}", timeout=30) as answer:
            return bytes(answer.read())


@pytest.fixture
def server(store: str, tmp_path: Path) -> Iterator[Server]:
    """Over the shared SQLite store, as `mlflow ui --backend-store-uri` is."""
    made = Server(tmp_path, store)
    made.start()
    yield made
    made.stop()


def test_a_server_keeps_the_record_and_an_outage_loses_nothing(
    server: Server, store: str, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = record(run, tracking_uri=server.url, experiment="served")
    assert capfd.readouterr() == ("", "")
    assert first.url == f"{server.url}/#/experiments/{first.experiment_id}/runs/{first.run_id}"
    assert first.ui_command is None
    assert server.artifact(first.run_id, "report.html") == (run / "report.html").read_bytes()
    assert record(run, tracking_uri=server.url, experiment="served").run_id == first.run_id

    server.stop()
    write_run(tmp_path / "later", seed=9)
    with pytest.raises(Unavailable, match="m4rag bench record"):
        record(tmp_path / "later", tracking_uri=server.url, experiment="served")
    server.start()
    later = record(tmp_path / "later", tracking_uri=server.url, experiment="served")
    assert later.created
    assert {held.info.status for held in runs_of(server.url, "served")} == {"FINISHED"}

    # What was recorded without a server is shown by the one that `ui_command` starts.
    local = record(run, tracking_uri=store, experiment="local")
    assert local.ui_command == f"mlflow ui --backend-store-uri {store}"
    assert server.artifact(local.run_id, "report.html") == (run / "report.html").read_bytes()


def asked_in(run: Path, languages: tuple[str, ...]) -> None:
    """Make a run look as if its questions had been asked in these languages, with today's prompts."""
    answers = list(read_folder(run / "answers", Answer))
    rows = [
        row.model_copy(update={"prompt_language": languages[number % len(languages)]})
        for number, row in enumerate(answers)
    ]
    made_by = Manifest(kind="answers", command="bench run", config={"languages": list(languages)})
    shutil.rmtree(run / "answers")
    write_folder(run / "answers", Answer, rows, made_by)
    RunPlan.read(run).model_copy(update={"prompts_digest": prompts.digest(languages)}).write(run)


def test_prompts_are_registered_once_for_each_text_and_linked_to_the_run(
    store: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_in(run, ("en", "yo"))
    first = record(run, tracking_uri=store, experiment="prompts")
    record(run, tracking_uri=store, experiment="prompts")
    connected = client(store)
    held = {}
    for code in ("en", "yo"):
        (version,) = connected.search_prompt_versions(f"m4rag-question-{code}")
        held[code] = version
        assert version.template == prompts.question_template(code)
    expected = [{"name": f"m4rag-question-{code}", "version": str(held[code].version)} for code in ("en", "yo")]
    assert json.loads(connected.get_run(first.run_id).data.tags["mlflow.linkedPrompts"]) == expected

    changed = tmp_path / "templates"
    shutil.copytree(prompts.TEMPLATES, changed)
    words = changed / prompts.WORDS / "yo.toml"
    words.write_text(words.read_text().replace("Ìbéèrè", "Ìbéérè"))
    monkeypatch.setattr(prompts, "TEMPLATES", changed)
    # The run was asked with other words than these, so there is nothing to register for it.
    record(run, tracking_uri=store, experiment="prompts")
    assert len(connected.search_prompt_versions("m4rag-question-yo")) == 1

    asked_in(run, ("yo",))
    second = record(run, tracking_uri=store, experiment="prompts")
    assert second.run_id != first.run_id
    assert len(connected.search_prompt_versions("m4rag-question-yo")) == 2
    assert len(connected.search_prompt_versions("m4rag-question-en")) == 1
    (link,) = json.loads(connected.get_run(second.run_id).data.tags["mlflow.linkedPrompts"])
    assert (link["name"], link["version"]) == ("m4rag-question-yo", "2")
    assert list((tmp_path / "cwd").iterdir()) == []
