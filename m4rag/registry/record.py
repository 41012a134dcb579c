"""One MLflow run for each benchmark run, however often it is recorded.

The MLflow run is found by the tag `m4rag.run_digest`, a digest over the plan and the answers: recording again updates
it. Everything is read and checked before the server is called, and written in one go; a server that fails half-way
leaves the run folder as it was and an MLflow run that the next call completes.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m4rag.bench.findings import describe
from m4rag.bench.joined import read_scores
from m4rag.bench.labels import AGREEMENT, read_agreement
from m4rag.bench.relevance import RELEVANCE, Relevance, read_relevance
from m4rag.bench.report import current_report
from m4rag.bench.runs import PLAN, RunPlan
from m4rag.bench.scoring import Scores
from m4rag.errors import Unavailable, UsageError
from m4rag.manifests import Manifest, digest
from m4rag.policy.kept import policy_files, read_kept
from m4rag.policy.model import Policy
from m4rag.policy.words import sentence
from m4rag.registry.prompts import LINKED, linked, prompts_of, register_prompt
from m4rag.registry.scalars import metric_key, scalars
from m4rag.registry.tables import run_tables
from m4rag.registry.tracking import database, open_experiment, public, tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

RUN_DIGEST = "m4rag.run_digest"
PLAN_DIGEST = "m4rag.plan_digest"
SUPERSEDED_BY = "m4rag.superseded_by"
DIGEST_LENGTH = 36
TAG_LENGTH = 5000
PARAM_LENGTH = 6000
TABLES = "tables"
POLICIES = "policies"
POLICY_DIGEST = "m4rag.policy_digest."
"""Tag of a policy's digest, before its setting; the file is the artifact `policies/policy-<setting>.json`."""
UI = "http://127.0.0.1:5000"


@dataclass(frozen=True)
class Recorded:
    """Where a benchmark run was recorded.

    Attributes:
        run_id: The MLflow run.
        experiment_id: Its experiment.
        url: Its page; for a SQLite store the page that `ui_command` serves.
        ui_command: What to run to look at a SQLite store, None where a server already shows it.
        run_digest: What the run is found by.
        created: False if the run was there already and has been updated, or if MLFLOW_RUN_ID named it.
        scalars: Number of metrics.
        left_out: Groups of numbers that are only in the tables because a run takes so many metrics and no more.
    """

    run_id: str
    experiment_id: str
    url: str
    ui_command: str | None
    run_digest: str
    created: bool
    scalars: int
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Contents:
    run_digest: str
    name: str
    prompts: dict[str, str]
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]
    inputs: tuple[tuple[str, str, str], ...]
    rows: int
    files: dict[str, tuple[Path, ...]]


def record(run_folder: Path, *, tracking_uri: str, experiment: str) -> Recorded:
    """Record a finished, scored run in MLflow; the same run again updates the same MLflow run.

    The prompts it was asked with are registered as MLflow prompts, a version a text, and linked to it. Its policies are
    artifacts under `policies/`, their digests tags.

    Inside a Kubeflow pipeline task whose MLflow plugin has opened a run (MLFLOW_RUN_ID), that run is used and left
    open for the plugin to close; `experiment` then plays no part.

    Args:
        run_folder: What `m4rag bench run` made, with `scores.json`. A report that is missing or not of these scores
            is written.
        tracking_uri: MLflow server, or `sqlite:////absolute/path/mlflow.db`.
        experiment: Experiment name; made if absent.

    Raises:
        BadData: The folder holds no complete, scored run, or a policy that was changed or is of other answers.
        UsageError: The address or the run in MLFLOW_RUN_ID makes no sense.
        Unavailable: The server does not answer or refuses. The run folder is untouched.
    """
    plan = RunPlan.read(run_folder)
    scores = read_scores(run_folder)
    relevance = read_relevance(run_folder)
    ruled = {path: read_kept(path) for path in policy_files(run_folder)}
    report = current_report(run_folder)
    remedy = (
        "Check MLFLOW_TRACKING_URI and that server. Nothing is lost: "
        f"`m4rag bench record {run_folder}` records the run later."
    )
    agreement = read_agreement(run_folder)
    names = [report.name, PLAN, "scores.json"]
    names += [name for name, found in ((RELEVANCE, relevance), (AGREEMENT, agreement)) if found is not None]
    with tempfile.TemporaryDirectory() as scratch:
        tables = run_tables(run_folder, plan, scores, relevance)
        chosen = scalars(scores, tables.gold_shown, relevance)
        run_digest = digest([plan.digest, Manifest.read(run_folder / "answers").digest])
        contents = _Contents(
            run_digest=run_digest,
            name=f"{plan.dataset} {plan.model.name} {run_digest[:8]}",
            prompts=prompts_of(run_folder, plan),
            metrics=chosen.values,
            params=_params(plan),
            tags=_tags(run_folder, plan, scores, relevance, tuple(ruled.values()), run_digest, chosen.left_out),
            inputs=_inputs(plan),
            rows=plan.n_questions,
            files={
                "": tuple(run_folder / name for name in names),
                TABLES: tuple(tables.write(Path(scratch))),
                POLICIES: tuple(ruled),
            },
        )
        with tracking(tracking_uri, remedy=remedy) as client:
            run, created = _run(client, contents, tracking_uri, experiment)
            _write(client, run, contents)
            _verify(client, run.info.run_id, contents, tracking_uri, remedy)
            if not os.environ.get("MLFLOW_RUN_ID"):
                client.set_terminated(run.info.run_id)
    experiment_id = str(run.info.experiment_id)
    local = database(tracking_uri)
    page = UI if local else public(tracking_uri).rstrip("/")
    return Recorded(
        run_id=run.info.run_id,
        experiment_id=experiment_id,
        url=f"{page}/#/experiments/{experiment_id}/runs/{run.info.run_id}",
        ui_command=f"mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}" if local else None,
        run_digest=contents.run_digest,
        created=created,
        scalars=len(contents.metrics),
        left_out=chosen.left_out,
    )


def _params(plan: RunPlan) -> dict[str, str]:
    """What determines the answers. Dotted names cannot collide with the parameters of a pipeline task."""
    model = plan.model
    params: dict[str, Any] = {
        "dataset.name": plan.dataset,
        "dataset.questions": plan.n_questions,
        "dataset.digest": plan.questions_digest,
        "dataset.images": plan.images,
        "run.settings": ", ".join(plan.settings),
        "model.name": model.name,
        "model.engine": model.engine,
        "model.root": model.root,
        "model.weights_digest": model.weights_digest or "unknown",
        "model.max_model_len": model.max_model_len or "unknown",
        "prompts.digest": plan.prompts_digest,
        "prompts.language": plan.prompt_language,
        "prompts.context_language": plan.context_language,
        "prompts.option_order": "dataset" if plan.option_order is None else plan.option_order,
        "retrieval.k": plan.k,
    }
    params |= {f"decoding.{name}": json.dumps(value) for name, value in plan.decoding.items()}
    for setting, index in plan.indexes.items():
        for name, value in index.model_dump().items():
            params[f"index.{setting.replace('/', '_')}.{name}"] = value
    return {name: _fitting(str(value), PARAM_LENGTH) for name, value in params.items()}


def _tags(
    folder: Path,
    plan: RunPlan,
    scores: Scores,
    relevance: Relevance | None,
    policies: Sequence[Policy],
    run_digest: str,
    left_out: Iterable[str],
) -> dict[str, str]:
    indexes = sorted({index.digest for index in plan.indexes.values()})
    tags = {
        RUN_DIGEST: run_digest,
        PLAN_DIGEST: plan.digest,
        "m4rag.version": Manifest.read(folder / "answers").package,
        "m4rag.command": plan.command,
        "m4rag.model": plan.model.name,
        "m4rag.model.weights_digest": plan.model.weights_digest or "unknown",
        "m4rag.model.engine": plan.model.engine,
        "m4rag.index_digest": ", ".join(indexes) or "none",
        "m4rag.images": plan.images,
        "m4rag.scalars_left_out": ", ".join(left_out) or "none",
        "mlflow.note.content": describe(plan, scores, relevance, {each.setting: sentence(each) for each in policies}),
        "mlflow.source.name": "m4rag bench",
    }
    if plan.model.note is not None:
        tags["m4rag.warning"] = plan.model.note
    if relevance is not None:
        # Tags, not parameters: the same run may be judged again by another model, and MLflow keeps parameters for ever.
        tags["m4rag.judge"] = relevance.judge.name
        tags["m4rag.judge.weights_digest"] = relevance.judge.weights_digest or "unknown"
        tags["m4rag.judge.prompts_digest"] = relevance.prompts_digest
        tags["m4rag.judge.with_answer"] = "yes" if relevance.with_answer else "no"
        agreement = read_agreement(folder)
        tags["m4rag.judge.agreement"] = "not labelled by people" if agreement is None else agreement.words
        tags["m4rag.judge.samples"] = str(relevance.consistency.samples if relevance.consistency else 1)
    if plan.images == "none":
        tags["m4rag.baseline"] = "text-only"
    # Tags for the same reason: a policy may be fitted again.
    tags |= {POLICY_DIGEST + metric_key(policy.setting): policy.digest for policy in policies}
    return {name: _fitting(value, TAG_LENGTH) for name, value in tags.items()}


def _fitting(text: str, length: int) -> str:
    """Text that every MLflow store takes whole: no NUL, and its digest where it is too long."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= length else f"sha256 {digest(text)}, in full in {PLAN}"


def _inputs(plan: RunPlan) -> tuple[tuple[str, str, str], ...]:
    """(name, sha256, context) of everything that went in."""
    files = [(name, sha256, "source") for name, sha256 in plan.inputs.items()]
    indexes = {(index.collection, index.digest, "retrieval-index") for index in plan.indexes.values()}
    return ((plan.dataset, plan.questions_digest, "evaluation"), *sorted(files), *sorted(indexes))


def _run(client: MlflowClient, contents: _Contents, uri: str, experiment: str) -> tuple[Run, bool]:
    """The MLflow run to write into, and whether it is new."""
    joined = os.environ.get("MLFLOW_RUN_ID")
    if joined:
        run = client.get_run(joined)
        held = run.data.tags.get(PLAN_DIGEST)
        if held not in (None, contents.tags[PLAN_DIGEST]):
            raise UsageError(
                "this MLflow run already holds another benchmark run",
                where=f"MLFLOW_RUN_ID={joined}",
                remedy="Unset it, or give each benchmark its own run.",
            )
        return run, False
    within = open_experiment(client, experiment, uri)
    found = _recorded(client, within, contents.run_digest)
    created = not found
    if created:
        tags = {RUN_DIGEST: contents.run_digest}
        run = client.create_run(within, tags=tags, run_name=contents.name)
        # Another process may have done the same just now, or the request been repeated: the lowest wins everywhere.
        found = _recorded(client, within, contents.run_digest) or [run]
        created = found[0].info.run_id == run.info.run_id
        if not created:
            client.set_terminated(run.info.run_id, "KILLED")
    winner, *losers = found
    for loser in losers:
        client.set_tag(loser.info.run_id, SUPERSEDED_BY, winner.info.run_id)
    return winner, created


def _recorded(client: MlflowClient, experiment_id: str, run_digest: str) -> list[Run]:
    runs = client.search_runs([experiment_id], filter_string=f"tags.`{RUN_DIGEST}` = '{run_digest}'")
    return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))


def _write(client: MlflowClient, run: Run, contents: _Contents) -> None:
    """Write everything that the run does not hold yet. Re-recording an unchanged run adds no point."""
    from mlflow.entities import Metric, Param, RunTag

    run_id, now = run.info.run_id, int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[
            Metric(key, value, now, 0) for key, value in contents.metrics.items() if run.data.metrics.get(key) != value
        ],
        params=[Param(*item) for item in contents.params.items() if run.data.params.get(item[0]) != item[1]],
        tags=[RunTag(*item) for item in contents.tags.items()],
        synchronous=True,
    )
    client.log_inputs(run_id, datasets=[_dataset(*given, contents.rows) for given in contents.inputs])
    if contents.prompts:
        versions = [register_prompt(client, *prompt) for prompt in contents.prompts.items()]
        client.set_tag(run_id, LINKED, linked(versions))
    for folder, files in contents.files.items():
        for file in files:
            client.log_artifact(run_id, str(file), folder or None)


def _dataset(name: str, sha256: str, context: str, rows: int) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = json.dumps({"num_rows": rows}) if context == "evaluation" else None
    return DatasetInput(
        # MLflow takes 36 characters of digest; the whole one is a tag.
        Dataset(name, sha256[:DIGEST_LENGTH], "local", json.dumps({"uri": name}), profile=profile),
        [InputTag("mlflow.data.context", context), InputTag("sha256", sha256)],
    )


def _verify(client: MlflowClient, run_id: str, contents: _Contents, uri: str, remedy: str) -> None:
    """Read back what was written: a record is done when the store shows it, not when a call returned."""
    held = client.get_run(run_id).data
    missing = [key for key, value in contents.metrics.items() if held.metrics.get(key) != value]
    missing += [name for name, value in contents.params.items() if held.params.get(name) != value]
    for folder, files in contents.files.items():
        sizes = {Path(item.path).name: item.file_size for item in client.list_artifacts(run_id, folder or None)}
        missing += [file.name for file in files if sizes.get(file.name) != file.stat().st_size]
    if missing:
        raise Unavailable(
            f"MLflow did not keep {len(missing)} of the values and files sent, first {missing[0]}",
            where=public(uri),
            remedy=remedy,
        )
