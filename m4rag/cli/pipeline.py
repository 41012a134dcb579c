"""`m4rag pipeline`: the Kubeflow pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m4rag.cli.output import Json, emit, say
from m4rag.cli.pipeline_launch import cancel_command, launch_command, need_kfp, status_command
from m4rag.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(help="Compile the Kubeflow pipelines, run them here or on a cluster.", no_args_is_help=True)


@app.command("list")
def list_pipelines(json: Json = False) -> None:
    """Show the pipelines and their parameters."""
    need_kfp()
    from pipelines import NAMES, pipeline

    rows: list[dict[str, Any]] = []
    for name in NAMES:
        spec = pipeline(name).component_spec
        parameters: dict[str, object] = {key: value.default for key, value in (spec.inputs or {}).items()}
        rows.append({"name": name, "description": spec.description or "", "parameters": parameters})

    def render(console: Console) -> None:
        from rich.table import Table

        table = Table("pipeline", "what it does", "parameters", box=None, pad_edge=False)
        for row in rows:
            table.add_row(str(row["name"]), str(row["description"]), ", ".join(row["parameters"]))
        console.print(table)

    emit(rows, json, render)


@app.command("compile")
def compile_pipelines(
    name: Annotated[str | None, typer.Argument(help="Pipeline to compile.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Compile every pipeline.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the YAML files.")] = Path("compiled"),
    kubernetes_manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write Pipeline and PipelineVersion objects for GitOps here, and nothing else."
        ),
    ] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace of these objects.")] = None,
    json: Json = False,
) -> None:
    """Write pipelines as IR YAML that Kubeflow Pipelines accepts."""
    need_kfp()
    from pipelines import NAMES
    from pipelines.compiled import compile_to, unpinned
    from pipelines.manifests import write_manifests

    if every == (name is not None):
        raise UsageError("name one pipeline, or --all", remedy=f"There are: {', '.join(NAMES)}.")
    written: list[str] = []
    for one in NAMES if every else [str(name)]:
        if kubernetes_manifest is None:
            path = compile_to(one, output)
            written.append(str(path))
            for image in unpinned(path):
                say(f"{path}: {image} is an image by tag; to launch, set M4RAG_IMAGE to one by digest")
        else:
            written += map(str, write_manifests(one, kubernetes_manifest, namespace))
    emit({"written": written}, json, lambda console: console.print("\n".join(written), highlight=False))


@app.command("explain-cache")
def explain_cache(
    name: Annotated[str, typer.Argument(help="Pipeline to explain.")],
    json: Json = False,
) -> None:
    """Show what the cache key of each task depends on, and which changes it misses."""
    need_kfp()
    from dataclasses import asdict
    from tempfile import TemporaryDirectory

    from pipelines.cache_keys import cache_keys
    from pipelines.compiled import compile_to
    from pipelines.ir import read

    with TemporaryDirectory() as folder:
        keys = cache_keys(read(compile_to(name, Path(folder))))

    def render(console: Console) -> None:
        def line(text: str) -> None:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

        for key in keys:
            line(f"{key.task}: {'cached' if key.cached else 'always runs'}")
            if not key.cached:
                continue
            line(f"  key: image {key.image}, source {key.source}")
            for one in (*key.inputs, *(f"volume claim {claim}" for claim in key.claims)):
                line(f"       {one}")
            for warning in key.warnings:
                line(f"  warning: {warning}")

    emit([asdict(key) for key in keys], json, render)


@app.command("run-local")
def run_local(
    name: Annotated[str, typer.Argument(help="Pipeline to run.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="Pipeline parameter as name=value; lists and numbers as JSON."),
    ] = None,
) -> None:
    """Compile a pipeline and run the compiled graph on this machine, every step a process of its own.

    Uses the embedded Milvus, MLflow and model unless the environment names others.
    """
    need_kfp()
    import os

    from m4rag.settings import settings
    from pipelines.compiled import compile_to, run_local
    from pipelines.ir import read
    from pipelines.parameters import parse

    home = settings().home.resolve()
    root = home / "pipelines" / name
    path = compile_to(name, root)
    arguments = parse(read(path), parameter or [])
    os.environ.update(M4RAG_HOME=str(home), MLFLOW_TRACKING_URI=settings().mlflow)
    if name != "benchmark" or arguments.get("models"):
        run_local(path, arguments, root)
        return
    from m4rag.vlm.local import served

    with served(settings(), None, say) as url:
        os.environ["M4RAG_VLM_URL"] = url
        run_local(path, arguments, root)
    say(f"artifacts: {root}")


for name, command in (("launch", launch_command), ("status", status_command), ("cancel", cancel_command)):
    app.command(name)(command)
