"""A pipeline on a cluster: submitted under the name of its content, followed until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m4rag.errors import CheckFailed, Unavailable, UsageError
from pipelines.features import PLUGINS_SINCE, beyond
from pipelines.ir import IR
from pipelines.server import Health, Refused, Run, Server, Unsure
from pipelines.task_states import DONE, TaskState, tasks

Say = Callable[[str], None]

POLL_S = (0.5, 10.0)
"""Seconds between two looks at a run: the first after a change, and the longest."""
PATIENCE_S = 300.0
"""How long a run is waited for whose server does not answer or refuses the token: a restart, a token being replaced."""


@dataclass(frozen=True)
class Launched:
    """A run that the server has accepted.

    Attributes:
        key: Id of the run.
        name: Its name.
        version: Name of the pipeline version, which its content gives.
        experiment: Name of the experiment, on this server and in MLflow.
    """

    key: str
    name: str
    version: str
    experiment: str


def check(ir: IR, health: Health, namespace: str, say: Say) -> None:
    """Whether the server can run the pipeline.

    Raises:
        Unavailable: It is too old for something that the pipeline uses, which it would ignore without a word.
        UsageError: It is a multi-user server and no namespace is given.
    """
    if health.multi_user and not namespace:
        raise UsageError("this server keeps everything in namespaces", remedy="Name yours with --namespace.")
    if health.version is None:
        say(f"the server calls itself {health.tag!r}: whether it knows what {ir.name} uses is not checked")
        return
    missing = list(beyond(ir, health.version))
    if missing:
        names = ", ".join(f"{feature.name} ({'.'.join(map(str, feature.since))})" for feature in missing)
        raise Unavailable(
            f"server {health.tag} is too old for {ir.name}: it ignores {names}",
            remedy=f"Upgrade Kubeflow Pipelines to {'.'.join(map(str, missing[0].since))} or newer.",
        )


def submit(
    server: Server,
    health: Health,
    ir: IR,
    path: Path,
    arguments: dict[str, Any],
    *,
    name: str,
    experiment: str,
    pipeline_root: str | None,
    service_account: str | None,
    say: Say,
) -> Launched:
    """Upload the pipeline if its content is not there, and start a run of it.

    Args:
        server: Where.
        health: What it says of itself.
        ir: The pipeline.
        path: Its compiled file.
        arguments: Parameters, of the right types.
        name: Name of the run.
        experiment: Experiment of the run, on this server and, where its MLflow plugin is on, in MLflow.
        pipeline_root: Where artifacts go; None leaves it to the server.
        service_account: Service account of the pods; None leaves it to the server.
        say: Takes one line at a time.
    """
    place = server.experiment(experiment)
    pipeline, version, there = server.version(ir, path)
    say(f"version {ir.version}: {'already on the server' if there else 'uploaded'}")
    plugins = None
    if health.version is None or health.version >= PLUGINS_SINCE:
        plugins = {"mlflow": {"experiment_name": experiment}}
    key = server.create_run(
        name,
        place,
        (pipeline, version),
        arguments,
        pipeline_root=pipeline_root,
        service_account=service_account,
        plugins=plugins,
    )
    return Launched(key, name, ir.version, experiment)


def follow(
    server: Server,
    key: str,
    say: Say,
    *,
    timeout_s: float | None = None,
    show: Say = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Run, tuple[TaskState, ...]]:
    """Wait for the end of a run, and say every change of a task in one line.

    Args:
        server: Where it runs.
        key: Id of the run.
        say: Takes a line for each change.
        timeout_s: Seconds to wait; None waits for as long as it takes. The run goes on after that.
        show: Takes one line with the state of the whole at every look.
        sleep: Waits some seconds.
        clock: Seconds since some moment.

    Returns:
        The run in its last state, which may be FAILED or CANCELED, and its tasks.

    Raises:
        CheckFailed: It was not over in time.
        Unavailable: The server was silent for longer than `PATIENCE_S`.
    """
    begun = clock()
    silent_since: float | None = None
    pause = POLL_S[0]
    said: dict[str, str] = {}
    while True:
        try:
            run = server.run(key)
        except (Unsure, Refused) as error:
            if silent_since is None:
                silent_since = clock()
                say(f"{error} Waiting {PATIENCE_S / 60:.0f} minutes for it; the run goes on.")
            if clock() - silent_since >= PATIENCE_S:
                raise
        else:
            if silent_since is not None:
                say("the server answers again")
            silent_since = None
            states = tasks(run.nodes)
            lines = {state.key: state.line for state in states}
            changes = {task: line for task, line in lines.items() if said.get(task) != line}
            for line in changes.values():
                say(line)
            said |= changes
            if run.state in DONE:
                return run, states
            show(summary(run, states))
            pause = POLL_S[0] if changes else pause
        waited = clock() - begun
        if timeout_s is not None and waited >= timeout_s:
            raise CheckFailed(f"not over after {waited:.0f} s; the run goes on", where=f"run {key}")
        sleep(pause if timeout_s is None else min(pause, timeout_s - waited))
        pause = min(pause * 1.5, POLL_S[1])


def summary(run: Run, states: tuple[TaskState, ...]) -> str:
    """The run in one line: `running: 3 of 5 tasks done, now judge`."""
    done = sum(state.state in DONE for state in states)
    now = ", ".join(state.name for state in states if state.state == "RUNNING")
    return f"{run.state.lower()}: {done} of {len(states)} tasks done" + (f", now {now}" if now else "")
