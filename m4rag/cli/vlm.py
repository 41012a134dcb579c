"""`m4rag vlm`: a vision-language model on this machine that stays up between commands."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m4rag import models
from m4rag.cli.output import Json, emit, progress

if TYPE_CHECKING:
    from rich.console import Console

    from m4rag.vlm.launcher import Background

app = typer.Typer(help="Run a vision-language model on this machine.", no_args_is_help=True)


@app.command()
def up(
    model: Annotated[
        str, typer.Option(help="Checkpoint folder or hub id, or a reference model: m4rag-nano-vlm-1m.")
    ] = models.VLM,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port on loopback. Default: a free one.")] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Context window in tokens. Default: the model's, as far as it fits.")
    ] = None,
    kv_cache_gib: Annotated[
        float, typer.Option(min=0.0, help="Memory for the KV cache on a CPU, in GiB; the context must fit into it.")
    ] = 0.5,
    json: Json = False,
) -> None:
    """Start vLLM, wait until it has answered a request with an image, and leave it running."""
    from m4rag.settings import settings
    from m4rag.vlm import launcher

    home = settings().home
    checkpoint: Path | str = models.folder(model) if model in models.NAMES else model
    name = Path(model).resolve().name if Path(model).exists() else model
    with progress("seconds until the model answers", None) as advance:
        server = launcher.up(
            home, checkpoint, name, port, max_model_len=max_model_len, kv_cache_gib=kv_cache_gib, progress=advance
        )
    emit(asdict(server), json, lambda console: _print(console, server))


@app.command()
def down(json: Json = False) -> None:
    """Stop the server that `m4rag vlm up` started."""
    from m4rag.settings import settings
    from m4rag.vlm import launcher

    server = launcher.down(settings().home)
    emit(
        {"stopped": asdict(server) if server else None},
        json,
        lambda console: console.print(f"stopped {server.model}" if server else "nothing was up"),
    )


@app.command()
def status(json: Json = False) -> None:
    """Say which server is up and whether it answers; exit code 1 if none does."""
    from m4rag.settings import settings
    from m4rag.vlm import launcher

    server = launcher.status(settings().home)
    answering = server is not None and launcher.answers(server.url)

    def render(console: Console) -> None:
        if server is None:
            console.print("nothing is up")
            return
        _print(console, server)
        if not answering:
            console.print("it does not answer: read its log, or `m4rag vlm down` and `up` again")

    emit({"up": asdict(server) | {"answering": answering} if server else None}, json, render)
    if not answering:
        raise typer.Exit(1)


def _print(console: Console, server: Background) -> None:
    console.print(f"{server.model} at {server.url} (process {server.pid}, log {server.log})", soft_wrap=True)
