"""One MLflow run for each training, found by the digest of the weights: recording again updates it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag.manifests import file_digest
from m4rag.registry.tracking import open_experiment, tracking

if TYPE_CHECKING:
    from mlflow.entities import Metric

WEIGHTS_DIGEST = "m4rag.weights_digest"
SHOWN = ("loss", "grad_norm", "learning_rate")
BATCH = 1000
"""Metrics a request; MLflow takes no more."""


def record_training(
    folder: Path,
    recipe: Mapping[str, object],
    history: Sequence[Mapping[str, float]],
    *,
    tracking_uri: str,
    experiment: str,
) -> str:
    """Record how a model was trained.

    Args:
        folder: The exported model; its files become artifacts.
        recipe: What determined the weights.
        history: Logged values, each with its `step`.
        tracking_uri: MLflow server or SQLite address.
        experiment: Experiment name; made if absent.

    Returns:
        The id of the MLflow run.

    Raises:
        Unavailable: The server does not answer or refuses; the model is on disk all the same.
    """
    weights = file_digest(folder / "model.safetensors")
    with tracking(tracking_uri, remedy=f"The model is in {folder}; the same command records it later.") as client:
        within = open_experiment(client, experiment, tracking_uri)
        found = client.search_runs([within], filter_string=f"tags.`{WEIGHTS_DIGEST}` = '{weights}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        run = client.create_run(within, run_name=f"train {folder.name} {weights[:8]}")
        run_id = str(run.info.run_id)
        for name, value in recipe.items():
            client.log_param(run_id, name, value if isinstance(value, str) else json.dumps(value))
        metrics = _metrics(history)
        for start in range(0, len(metrics), BATCH):
            client.log_batch(run_id, metrics=metrics[start : start + BATCH], synchronous=True)
        for file in sorted(folder.iterdir()):
            client.log_artifact(run_id, str(file))
        client.set_tag(run_id, WEIGHTS_DIGEST, weights)  # last: a record that broke off is not found
        client.set_terminated(run_id)
    return run_id


def _metrics(history: Sequence[Mapping[str, float]]) -> list[Metric]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [
        Metric(name, float(values[name]), now, int(values["step"]))
        for values in history
        for name in SHOWN
        if name in values
    ]
