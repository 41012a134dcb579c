"""Real vLLM servers with the random-weight stand-in, one of each kind for the whole test session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from m4rag.vlm.launcher import Runner, VllmServer


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the stand-in checkpoint."""
    from m4rag.vlm.standin import write_standin

    return write_standin(tmp_path_factory.mktemp("models") / "standin")


@pytest.fixture(scope="session")
def vlm_server(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """A server that answers: `.url` ends in `/v1`, `.model` is the model's name."""
    yield from _serve(standin, tmp_path_factory.mktemp("vlm_server") / "vllm.log", "generate")


@pytest.fixture(scope="session")
def embedding_server(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """A server that embeds texts and images on `/v1/embeddings`."""
    yield from _serve(standin, tmp_path_factory.mktemp("embedding_server") / "vllm.log", "pooling")


def _serve(model: Path, log: Path, runner: Runner) -> Iterator[VllmServer]:
    from m4rag.vlm import guard, launcher, standin

    with launcher.start(model, served_name=standin.NAME, runner=runner, log=log) as server:
        yield server
    assert guard.members(server.pid) == [], "stopping left processes behind"
