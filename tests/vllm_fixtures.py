"""Real vLLM servers with reference models, one of each kind for the whole test session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from m4rag import models

if TYPE_CHECKING:
    from m4rag.vlm.launcher import Runner, VllmServer


@pytest.fixture(scope="session")
def vlm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """A server that answers: `.url` ends in `/v1`, `.model` is the model's name."""
    yield from _serve(models.VLM, tmp_path_factory, "generate")


@pytest.fixture(scope="session")
def embedding_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """A server that embeds texts and images on `/v1/embeddings`."""
    yield from _serve(models.EMBED, tmp_path_factory, "pooling")


def _serve(name: str, folders: pytest.TempPathFactory, runner: Runner) -> Iterator[VllmServer]:
    from m4rag.vlm import guard, launcher

    log = folders.mktemp(name) / "vllm.log"
    with launcher.start(models.folder(name), served_name=name, runner=runner, log=log) as server:
        yield server
    assert guard.members(server.pid) == [], "stopping left processes behind"
