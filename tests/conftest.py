"""Fixtures that more than one part of the suite needs."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from m4rag.settings import settings as read_settings

settings.register_profile("untimed", deadline=None)  # a busy machine must not fail a test
settings.load_profile("untimed")

# Steps of pipelines that are launched have an image by digest; components read it when they are imported.
os.environ.setdefault("M4RAG_IMAGE", f"registry.example/m4rag-python@sha256:{'0' * 64}")

pytest_plugins = ["milvus_fixtures", "vllm_fixtures", "integration.control_plane"]

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real WorldCuisines data (CC BY-SA 4.0, not shipped): `M4RAG_SHARED_DATA` or beside the repository."""
    named = os.environ.get("M4RAG_SHARED_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data" / "worldcuisines"
    if not (folder / "test_large.parquet").exists():
        pytest.skip(f"no WorldCuisines data at {folder}: set M4RAG_SHARED_DATA to its folder")
    return folder


@pytest.fixture(autouse=True)
def _fresh_settings() -> None:
    """A process reads its settings once; every test is a process of its own in that."""
    read_settings.cache_clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With M4RAG_NO_SKIP=1 (CI), a test that skips has failed: everything it needs must be there."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("M4RAG_NO_SKIP") == "1":
        report.outcome = "failed"
    return report
