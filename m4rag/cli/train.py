"""`m4rag train`: the reference models, from their recipe to weights that vLLM serves."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m4rag import models
from m4rag.cli.output import Json, emit, progress, say
from m4rag.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(help="Train the reference models.", no_args_is_help=True)

PACKAGES = ("accelerate", "datasets", "sentence_transformers", "torch", "transformers")
"""What training needs and a plain installation lacks."""

Recipe = Annotated[str, typer.Option(help="nano: the reference models on the museum's world.")]
Names = Annotated[list[str] | None, typer.Option("--model", help="Only this model; repeat it. Default: all.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the models. Default: models in M4RAG_HOME.")]
Seed = Annotated[int, typer.Option(help="Determines data, first weights and order.")]


@app.command("vlm")
def vlm_command(
    recipe: Recipe = "nano", model: Names = None, out: Out = None, seed: Seed = 0, json: Json = False
) -> None:
    """Train models that answer, caption and judge. Interrupted, the same command continues."""
    from m4rag.training.vlm import train_vlm

    _train(train_vlm, _named(model, (models.VLM, models.SMALL_VLM)), recipe, out, seed, json)


@app.command("retriever")
def retriever_command(
    recipe: Recipe = "nano", model: Names = None, out: Out = None, seed: Seed = 0, json: Json = False
) -> None:
    """Train encoders of questions, passages and page pictures. Interrupted, the same command continues.

    The multi-vector model starts from the single-vector one of the same folder.
    """
    from m4rag.training.retriever import train_retriever

    _train(train_retriever, _named(model, (models.EMBED, models.COLEMBED)), recipe, out, seed, json)


def _named(asked: list[str] | None, known: tuple[str, ...]) -> list[str]:
    for name in asked or ():
        if name not in known:
            raise UsageError(f"unknown model {name!r}", remedy=f"Known: {', '.join(known)}.")
    return [name for name in known if not asked or name in asked]


def _train(train: Any, names: list[str], recipe: str, out: Path | None, seed: int, json: bool) -> None:
    from m4rag.manifests import file_digest
    from m4rag.registry.training import record_training
    from m4rag.settings import settings

    if recipe != "nano":
        raise UsageError(f"unknown recipe {recipe!r}", remedy="Known: nano.")
    for package in PACKAGES:
        if find_spec(package) is None:
            raise Unavailable(f"the package {package} is not installed", remedy="pip install 'm4rag[train]'")
    into = out or settings().home / "models"
    trained = []
    for name in names:
        say(f"{name}: training (checkpoints in {settings().home / 'training'})")
        made = train(name, into / name, settings().home / "training", seed=seed, progress=progress)
        run = record_training(
            into / name,
            made.recipe,
            made.history,
            tracking_uri=settings().mlflow,
            experiment=f"{settings().mlflow_experiment}-training",
        )
        weights = file_digest(into / name / "model.safetensors")
        trained.append({"model": name, "folder": str(into / name), "sha256": weights, "mlflow_run": run})

    def render(console: Console) -> None:
        for row in trained:
            console.print(f"{row['model']}: {row['folder']} (sha256 {row['sha256'][:12]})", soft_wrap=True)

    emit(trained, json, render)
