"""What several commands do at their end: keep the run in MLflow."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from m4rag.errors import Unavailable
from m4rag.settings import Settings


def record_run(run: Path, settings: Settings) -> dict[str, Any]:
    """Log a run to MLflow.

    Raises:
        Unavailable: The server can't be reached; says how to record the run later.
    """
    from m4rag.registry.record import record

    try:
        return asdict(record(run, tracking_uri=settings.mlflow, experiment=settings.mlflow_experiment))
    except Unavailable as error:
        raise Unavailable(
            error.what, where=error.where, remedy=f"The run is complete in {run}; later: m4rag bench record {run}"
        ) from None
