"""Reach an MLflow tracking store: bounded waits, no chatter, one clear error.

MLflow is imported here and only here, after its environment is set: left to its defaults it tries for four minutes
before it says that a server is gone, reports to its vendor, and prints links to stdout.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from m4rag.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
}
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Makes MLflow's pages open on the table of runs and their metrics, not on traces."""
LOUD = ("mlflow", "alembic", "urllib3", "git")
SQLITE = "sqlite:///"
ARTIFACTS = "mlflow-artifacts"
REASON_LENGTH = 200


@contextmanager
def tracking(uri: str, *, remedy: str) -> Iterator[MlflowClient]:
    """A client for the tracking store, ready to write.

    A SQLite store is created on first use, its folder included; parallel first uses wait for each other, because
    MLflow's own schema creation crashes in all processes but one.

    Args:
        uri: `http(s)://...`, `sqlite:////absolute/path.db` or another database that MLflow takes.
        remedy: What the user does when the store cannot be reached.

    Raises:
        UsageError: The address is a plain folder, which MLflow no longer writes.
        Unavailable: The store does not answer, refuses, or needs a driver that is not installed.
    """
    if urlsplit(uri).scheme in ("", "file"):
        raise UsageError(
            "MLflow no longer writes plain folders",
            where=uri or "MLFLOW_TRACKING_URI",
            remedy="Use sqlite:////absolute/path/mlflow.db or the address of a server.",
        )
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    with _quiet():
        try:
            with _first_use(uri):
                # Any call creates or checks the schema of a database.
                client = MlflowClient(tracking_uri=uri)
                client.search_experiments(max_results=1)
            yield client
        except (MlflowException, RequestException, SQLAlchemyError, ImportError, OSError) as error:
            raise Unavailable(_reason(error, uri), where=public(uri), remedy=remedy) from error


def public(uri: str) -> str:
    """The address without a user name or password in it."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def database(uri: str) -> Path | None:
    """The file of a SQLite address, None for any other."""
    if not uri.startswith(SQLITE):
        return None
    return Path(uri.removeprefix(SQLITE).partition("?")[0]).resolve()


def artifact_root(uri: str) -> str | None:
    """Where a new experiment's files go: beside a SQLite database, else (None) wherever the server puts them."""
    path = database(uri)
    return None if path is None else (path.parent / ARTIFACTS).as_uri()


def open_experiment(client: MlflowClient, name: str, uri: str) -> str:
    """The id of an experiment, made if absent.

    Args:
        client: Of the store.
        name: The experiment's name.
        uri: The store's address: says where a new experiment's files go.

    Raises:
        UsageError: The experiment was deleted.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(name, artifact_location=artifact_root(uri), tags=EXPERIMENT_TAGS)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise UsageError(
            "the experiment was deleted", where=name, remedy="Restore it, or name another by M4RAG_MLFLOW_EXPERIMENT."
        )
    return str(experiment.experiment_id)


@contextmanager
def _first_use(uri: str) -> Iterator[None]:
    path = database(uri)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reason(error: BaseException, uri: str) -> str:
    """What to tell: the system's own word for an unanswered call, else the first line of the refusal."""
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import Timeout

    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    if any(isinstance(link, NoConnection | Timeout) for link in chain):
        word = next(
            (link.strerror for link in chain if isinstance(link, OSError) and link.strerror), "no answer in time"
        )
        return f"the tracking server does not answer ({word})"
    lines = str(error).replace(uri, public(uri)).strip().splitlines() or [type(error).__name__]
    return f"MLflow cannot record here ({lines[0][:REASON_LENGTH]})"
