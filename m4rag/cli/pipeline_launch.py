"""`m4rag pipeline launch|status|cancel`: runs on a Kubeflow Pipelines server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from m4rag.cli.output import Json, emit, say
from m4rag.errors import CheckFailed, M4ragError, Unavailable

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.server import Run, Server
    from pipelines.task_states import TaskState

Host = Annotated[
    str | None,
    typer.Option(help="Address of Kubeflow Pipelines. Default: KF_PIPELINES_ENDPOINT, in a pod the cluster's own."),
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Your namespace on a multi-user server. Default: a pod's own.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help="File with a bearer token, read before every request. Default: KF_PIPELINES_SA_TOKEN_PATH, "
        "in a pod the projected token."
    ),
]
CaFile = Annotated[Path | None, typer.Option(help="Certificates of the authority that signed the server's.")]


def need_kfp() -> None:
    """Raise `Unavailable`, with the remedy, where kfp is not installed."""
    from importlib.util import find_spec

    if find_spec("kfp") is None:
        raise Unavailable("kfp is not installed", remedy="pip install 'm4rag[pipelines]'")


def launch_command(
    name: Annotated[str, typer.Argument(help="Pipeline to launch (m4rag pipeline list).")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="Parameter as name=value; numbers, booleans, lists and objects as JSON."),
    ] = None,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    experiment: Annotated[
        str | None,
        typer.Option(help="Experiment, on the server and in MLflow. Default: M4RAG_MLFLOW_EXPERIMENT, else m4rag."),
    ] = None,
    run_name: Annotated[str | None, typer.Option(help="Default: the pipeline's version and the time.")] = None,
    service_account: Annotated[str | None, typer.Option(help="Service account of the pods.")] = None,
    pipeline_root: Annotated[str | None, typer.Option(help="Where artifacts go, e.g. s3://bucket/path.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end of the run.")] = True,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="Wait this long; the run goes on after that.")
    ] = None,
    json: Json = False,
) -> None:
    """Compile a pipeline, upload it under the name of its content, run it on a cluster and follow the run.

    Exit code 1 if the run fails or is cancelled. Ctrl-C leaves the run going.
    """
    need_kfp()
    from datetime import UTC, datetime
    from tempfile import TemporaryDirectory

    from m4rag.settings import settings
    from pipelines.compiled import compile_to, require_pinned
    from pipelines.ir import read
    from pipelines.launch import check, submit
    from pipelines.parameters import parse

    with TemporaryDirectory() as folder:
        path = compile_to(name, Path(folder))
        require_pinned(path)
        ir = read(path)
        arguments = parse(ir, parameter or [])
        server = _server(host, namespace, token_file, ca_file)
        health = server.health()
        check(ir, health, server.access.namespace, say)
        run_name = run_name or f"{ir.version} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        try:
            launched = submit(
                server,
                health,
                ir,
                path,
                arguments,
                name=run_name,
                experiment=experiment or settings().mlflow_experiment,
                pipeline_root=pipeline_root,
                service_account=service_account,
                say=say,
            )
        except KeyboardInterrupt:
            say(f"interrupted before the server gave the run an id: look for {run_name!r} in {server.access.ui}")
            raise typer.Exit(130) from None
    say(f"run {launched.key}: {server.url(launched.key)}")
    document = {
        "run": launched.key,
        "name": launched.name,
        "version": launched.version,
        "url": server.url(launched.key),
    }
    if not wait:
        emit(document, json, lambda console: console.print(launched.key, highlight=False))
        return
    _wait(server, launched.key, timeout, json, document)


def status_command(
    run: Annotated[str, typer.Argument(help="Id of the run.", metavar="RUN_ID")],
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run until it ends.")] = False,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", min=0, help="With --wait: for this long.")] = None,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    json: Json = False,
) -> None:
    """Show what the tasks of a run do; exit code 1 if it failed or was cancelled."""
    from pipelines.task_states import tasks

    server = _server(host, namespace, token_file, ca_file)
    if wait:
        _wait(server, run, timeout, json, {})
        return
    found = server.run(run)
    _result(server, found, tasks(found.nodes), json, {})


def cancel_command(
    run: Annotated[str, typer.Argument(help="Id of the run.", metavar="RUN_ID")],
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Cancel a run. Its clean-up steps may not get to run: the reaper removes models that it deployed."""
    from pipelines.task_states import DONE

    server = _server(host, namespace, token_file, ca_file)
    found = server.run(run)
    if found.state in DONE:
        say(f"run {run} is over: {found.state.lower()}")
        return
    server.cancel(run)
    say(f"run {run} ({found.name}) is being cancelled")


def _server(host: str | None, namespace: str | None, token_file: Path | None, ca_file: Path | None) -> Server:
    need_kfp()
    from pipelines.server import Server, access

    return Server(access(host, namespace, token_file, ca_file))


def _wait(server: Server, key: str, timeout_s: float | None, json: bool, document: dict[str, Any]) -> None:
    from pipelines.launch import follow

    try:
        with _shown() as (line, show):
            run, states = follow(server, key, line, timeout_s=timeout_s, show=show)
    except KeyboardInterrupt:
        say(f"run {key} goes on. {_commands(server, key)}")
        raise typer.Exit(130) from None
    except M4ragError as error:
        error.remedy = " ".join(filter(None, (error.remedy, _commands(server, key))))
        raise
    _result(server, run, states, json, document)


def _result(server: Server, run: Run, states: tuple[TaskState, ...], json: bool, document: dict[str, Any]) -> None:
    """Print the run; end with an error if it failed or was cancelled."""
    rows = [{"task": state.name, "state": state.state, "note": state.note} for state in states]
    mlflow = run.plugins.get("mlflow", {})
    document = {
        **document,
        "run": run.key,
        "name": run.name,
        "state": run.state,
        "url": server.url(run.key),
        "mlflow": mlflow.get("run_url"),
        "tasks": rows,
    }

    def render(console: Console) -> None:
        from rich.table import Table

        table = Table("task", "state", "", box=None, pad_edge=False)
        for row in rows:
            table.add_row(row["task"], row["state"].lower(), row["note"])
        console.print(table)
        console.print(f"{run.name}: {run.state.lower()}", markup=False, highlight=False, soft_wrap=True)
        if mlflow.get("run_url"):
            console.print(f"MLflow: {mlflow['run_url']}", markup=False, highlight=False, soft_wrap=True)

    emit(document, json, render)
    if "state_message" in mlflow:
        say(f"MLflow has no record of this run: {mlflow['state_message']}")
    if run.state in ("FAILED", "CANCELED"):
        _fail(server, run, states)


def _fail(server: Server, run: Run, states: tuple[TaskState, ...]) -> NoReturn:
    from pipelines.task_states import failed

    culprits = failed(states)
    for state in culprits:
        for line in (*filter(None, [state.message]), *_pod(server, run, state)):
            say(f"{state.name}: {line}")
    what = f"the run was cancelled ({run.message})" if run.message else "the run was cancelled"
    if run.state == "FAILED":
        names = ", ".join(state.name for state in culprits)
        what = " ".join(filter(None, (f"{names} failed" if names else "the run failed", run.message)))
    raise CheckFailed(what, where=f"run {run.key}", remedy=f"See {server.url(run.key)}")


def _pod(server: Server, run: Run, state: TaskState) -> list[str]:
    """What the cluster says of the pod that failed, where there is access to one."""
    from m4rag.deploy.cluster import Cluster
    from pipelines.failed_pods import explain

    try:
        # Without users, pods run where Kubeflow Pipelines is installed.
        return explain(Cluster.connect(namespace=server.access.namespace or "kubeflow"), run.key, state.pod)
    except M4ragError as error:
        return [f"no events and log of its pod ({error.where or 'KUBECONFIG'}: {error.what})"]


def _commands(server: Server, key: str) -> str:
    """What to type next, with the options that reach the same server."""
    import shlex

    access = server.access
    given = {
        "--host": access.host,
        "-n": access.namespace,
        "--token-file": access.token_file,
        "--ca-file": access.ca_file,
    }
    options = shlex.join([word for name, value in given.items() if value for word in (name, str(value))])
    return f"To look: m4rag pipeline status {key} --wait {options}; to end it: m4rag pipeline cancel {key} {options}"


@contextmanager
def _shown() -> Iterator[tuple[Callable[[str], None], Callable[[str], None]]]:
    """Where lines go, and the one that is written over: on a terminal only."""
    if not sys.stderr.isatty():
        yield say, lambda _: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("waiting for the first task") as status:
        yield (
            lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
            status.update,
        )
