"""The reference models: small, trained by `m4rag train` on the museum benchmark's world, shipped with their weights.

    m4rag-nano-vlm-4m    answers, captions, judges; 4 M parameters
    m4rag-nano-vlm-1m    the same at about 1 M: what a weaker model makes of the same context
    m4rag-nano-embed     questions, passages and page pictures in one space: the last token's vector
    m4rag-nano-colembed  its multi-vector sister: every token's vector, compared by MaxSim

Each folder is a checkpoint that vLLM serves and transformers loads, with a model card. They show on a laptop what
retrieval does to a model; they know nothing but the museum.
"""

from __future__ import annotations

from pathlib import Path

VLM, SMALL_VLM, EMBED, COLEMBED = "m4rag-nano-vlm-4m", "m4rag-nano-vlm-1m", "m4rag-nano-embed", "m4rag-nano-colembed"
NAMES = (VLM, SMALL_VLM, EMBED, COLEMBED)
WORLD = "museum"
"""The dataset whose world they know."""


def folder(name: str) -> Path:
    """Where a reference model is."""
    return Path(__file__).parent / name


def note(name: str, dataset: str) -> str | None:
    """What must stand beside every number of a reference model that is asked about what it never learned."""
    if name not in NAMES or dataset == WORLD:
        return None
    return (
        f"{name} was trained on the {WORLD} benchmark alone: here its accuracy is chance and says nothing about any "
        "real model."
    )
