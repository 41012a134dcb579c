"""`m4rag serve`: the RAG endpoint in front of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m4rag.cli.output import say


def serve(
    vlm_url: Annotated[
        str | None, typer.Option(help="The model's OpenAI-compatible address. Default: M4RAG_SERVE_VLM_URL.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="When to retrieve: a file of `m4rag policy fit`.")] = None,
    retrieval: Annotated[
        str | None, typer.Option(help="`policy`, or `off` to put nothing before the model. Default: policy.")
    ] = None,
    index: Annotated[str | None, typer.Option(help="Alias of the index. Default: the policy's.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8080,
) -> None:
    """Serve a model, with passages where its policy says so, on an OpenAI-compatible API."""
    from m4rag.settings import settings
    from serving.rag.configuration import configuration
    from serving.rag.server import serve_until_stopped

    told = configuration(vlm_url=vlm_url, policy=policy, retrieval=retrieval, index=index)
    serve_until_stopped(told, settings(), host, port, lambda address: say(f"serving on {address}"))
