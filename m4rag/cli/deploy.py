"""`m4rag deploy`: models on a Kubernetes cluster with KServe."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m4rag.cli.deploy_cost import cost_command
from m4rag.cli.output import Json, emit, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from m4rag.deploy.catalog import ServedModel
    from m4rag.deploy.cluster import Cluster
    from m4rag.deploy.deployment import Condition, Deployed
    from m4rag.deploy.preflight import Row
    from m4rag.deploy.removal import Removed

app = typer.Typer(help="Put models on a Kubernetes cluster, watch over them, take them off.", no_args_is_help=True)
app.command("cost")(cost_command)

Kubeconfig = Annotated[
    Path | None, typer.Option(help="File that says where the cluster is. Default: KUBECONFIG, the pod's own account.")
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig. Default: its current one.")]
Namespace = Annotated[str | None, typer.Option("-n", "--namespace", help="Default: the context's.")]
Run = Annotated[str | None, typer.Option(help="Run that it belongs to; `remove --run` removes all of a run.")]
Profile = Literal["InferenceService", "LLMInferenceService"]


@app.command()
def vlm(
    model: Annotated[str, typer.Argument(help="A model of the table, or a YAML file with one of your own.")],
    revision: Annotated[str | None, typer.Option(help="Commit of the model's repository, 40 hex digits.")] = None,
    uri: Annotated[
        str | None, typer.Option(help="Its weights elsewhere: hf://, oci://...@sha256:, s3:// or pvc://.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the service. Default: from model and run.")] = None,
    hardware: Annotated[str | None, typer.Option(help="Hardware profile. Default: the model's.")] = None,
    profile: Annotated[Profile, typer.Option(help="What KServe makes of it.")] = "InferenceService",
    replicas: Annotated[int, typer.Option(min=1, max=1000)] = 1,
    image: Annotated[str | None, typer.Option(help="vLLM's image by digest. Default: M4RAG_VLLM_IMAGE.")] = None,
    allow_tag: Annotated[bool, typer.Option("--allow-tag", help="Take an image by tag, for development.")] = False,
    run: Run = None,
    expires_in_h: Annotated[
        float | None, typer.Option(min=0.0, help="Hours after which the reaper may remove it. Default: never.")
    ] = None,
    owner_pod: Annotated[
        str | None, typer.Option(help="Pod of a pipeline step: the service goes away with its workflow.")
    ] = None,
    service_account: Annotated[str | None, typer.Option(help="Account whose secrets fetch the weights.")] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Where to reach it from here, ending in /v1. Default: its address in the cluster."),
    ] = None,
    wait_min: Annotated[float, typer.Option(min=0.0, help="Minutes until it must be ready.")] = 60.0,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """Deploy a model, wait until it is ready, and prove that it answers about a picture. Safe to repeat."""
    from m4rag.deploy import catalog, deployment, names
    from m4rag.deploy.vlm_service import VLMService
    from m4rag.errors import UsageError
    from m4rag.settings import settings

    served = catalog.model(model)
    chosen = image or settings().vllm_image
    if chosen is None:
        raise UsageError(
            "no image is named",
            remedy="Give --image or M4RAG_VLLM_IMAGE: vLLM's image as registry/name@sha256:<digest>.",
        )
    cluster = _connect(kubeconfig, context, namespace)
    service = VLMService(
        name=name or (served.name if run is None else names.service_name(served.name, run)),
        namespace=cluster.namespace,
        model=served,
        uri=_weights(served, revision, uri),
        hardware=catalog.hardware(hardware or served.hardware),
        image=chosen,
        allow_tag=allow_tag,
        profile=profile,
        replicas=replicas,
        run=run,
        expires_at=None if expires_in_h is None else datetime.now(UTC) + timedelta(hours=expires_in_h),
        owner=None if owner_pod is None else deployment.workflow_of(cluster, owner_pod),
        service_account=service_account,
    )
    deployed = deployment.deploy(
        cluster, service, say=say, wait_s=wait_min * 60, url=url, api_key=settings().vlm_api_key
    )
    emit(asdict(deployed), json, lambda console: _print_deployed(console, deployed))


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="One service. Default: all that m4rag deployed.")] = None,
    run: Run = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """Say how the deployed services are, what is wrong and what to do; exit code 1 if one is not ready."""
    from m4rag.deploy import deployment
    from m4rag.deploy.causes import Level
    from m4rag.errors import CheckFailed

    cluster = _connect(kubeconfig, context, namespace)
    found = deployment.conditions(cluster, run=run, name=name)
    if name is not None and not found:
        raise CheckFailed(
            "m4rag deployed no service of that name",
            where=f"{name} in {cluster.namespace}",
            remedy="Leave the name out.",
        )
    emit([asdict(one) for one in found], json, lambda console: _print_conditions(console, found, cluster.namespace))
    if any(one.diagnosis.level is not Level.READY for one in found):
        raise typer.Exit(1)


@app.command()
def remove(
    name: Annotated[str | None, typer.Argument(help="One service, with its runtime.")] = None,
    run: Run = None,
    wait_min: Annotated[float, typer.Option(min=0.0, help="Minutes until its pods must be gone.")] = 15.0,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """Remove a service, or all of a run, and wait until the GPUs are free. Nothing there is success."""
    from m4rag.deploy import removal
    from m4rag.errors import UsageError

    if (name is None) == (run is None):
        raise UsageError("neither a name nor --run, or both", remedy="Name one service, or give --run RUN.")
    cluster = _connect(kubeconfig, context, namespace)
    removed = removal.remove(cluster, run=run, name=name, timeout_s=wait_min * 60, say=say)
    emit([asdict(one) for one in removed], json, lambda console: _print_removed(console, removed))


@app.command()
def reap(
    kubeconfig: Kubeconfig = None, context: Context = None, namespace: Namespace = None, json: Json = False
) -> None:
    """Remove what has expired: services that a killed run left behind."""
    from m4rag.deploy import removal

    removed = removal.reap(_connect(kubeconfig, context, namespace), datetime.now(UTC))
    emit([asdict(one) for one in removed], json, lambda console: _print_removed(console, removed))


@app.command()
def preflight(
    hardware: Annotated[str, typer.Option(help="Hardware profile of what is to be deployed.")] = "h100x1",
    profile: Annotated[Profile, typer.Option(help="What KServe is to make of it.")] = "InferenceService",
    account: Annotated[
        str, typer.Option(help="Whose permissions are asked for: pipeline-runner, reaper, rag-endpoint or audit.")
    ] = "pipeline-runner",
    storage_class: Annotated[str | None, typer.Option(help="Default: the cluster's default.")] = None,
    secret: Annotated[list[str] | None, typer.Option(help="A secret that must be there; may be repeated.")] = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """Look whether the cluster has what a deployment needs; exit code 1 if something is missing. Changes nothing."""
    from m4rag.deploy import catalog, permissions
    from m4rag.deploy import preflight as checks

    rows = checks.preflight(
        _connect(kubeconfig, context, namespace),
        hardware=catalog.hardware(hardware),
        rules=permissions.rules(account),
        profile=profile,
        storage_class=storage_class,
        secrets=secret or (),
    )
    emit([asdict(row) for row in rows], json, lambda console: _print_rows(console, rows))
    if any(row.state == "missing" for row in rows):
        raise typer.Exit(1)


def _connect(kubeconfig: Path | None, context: str | None, namespace: str | None) -> Cluster:
    from m4rag.deploy.cluster import Cluster

    return Cluster.connect(kubeconfig, context=context, namespace=namespace)


def _weights(model: ServedModel, revision: str | None, uri: str | None) -> str:
    """The address of the weights with what pins them."""
    from m4rag.errors import UsageError

    if (revision is None) == (uri is None):
        raise UsageError(
            "neither --revision nor --uri, or both",
            where=model.name,
            remedy=f"Give the commit of {model.uri} as --revision, or the weights' own address as --uri.",
        )
    return uri or f"{model.uri}:{revision}"


def _print_deployed(console: Console, deployed: Deployed) -> None:
    proof = deployed.proof
    spent = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in deployed.seconds.items() if seconds >= 1)
    console.print(f"{deployed.kind} {deployed.namespace}/{deployed.name}: {deployed.outcome}", soft_wrap=True)
    console.print(f"  url     {deployed.url}", soft_wrap=True)
    known = [proof.engine, f"{proof.max_model_len} tokens" if proof.max_model_len else ""]
    console.print(f"  model   {' '.join([proof.model, *filter(None, known)])}", soft_wrap=True)
    said = f"{proof.dimension} numbers" if proof.answer is None else repr(proof.answer)
    console.print(f"  proof   {said} in {proof.latency_ms:.0f} ms", soft_wrap=True, markup=False)
    console.print(f"  waited  {spent or 'not at all'}", soft_wrap=True)
    for image in deployed.images:
        console.print(f"  image   {image}", soft_wrap=True)


def _print_conditions(console: Console, found: Sequence[Condition], namespace: str) -> None:
    if not found:
        console.print(f"m4rag deployed nothing in {namespace}")
    for one in found:
        diagnosis = one.diagnosis
        console.print(f"{one.kind} {one.name}: {diagnosis.level} ({diagnosis.category})", soft_wrap=True, markup=False)
        console.print(f"  {diagnosis.summary}", soft_wrap=True, markup=False)
        if diagnosis.detail and diagnosis.detail not in diagnosis.summary:
            for line in diagnosis.detail.splitlines():
                console.print(f"    {line}", soft_wrap=True, markup=False, highlight=False)
        if diagnosis.resolution:
            console.print(f"  {diagnosis.resolution}", soft_wrap=True, markup=False)
        if one.url is not None:
            console.print(f"  {one.url}", soft_wrap=True, markup=False)


def _print_removed(console: Console, removed: Sequence[Removed]) -> None:
    if not removed:
        console.print("there was nothing to remove")
    for one in removed:
        console.print(f"removed {one.kind} {one.name}{f' of run {one.run}' if one.run else ''}", soft_wrap=True)


def _print_rows(console: Console, rows: Sequence[Row]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("check", "state", "detail", "remedy"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, (row.check, row.state, row.detail, row.remedy)))
    console.print(table)
