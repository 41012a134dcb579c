"""Kubeflow pipelines. Each module holds one pipeline that reads like a table of contents."""

from __future__ import annotations

from importlib import import_module
from typing import Any

NAMES = ("build_index", "benchmark")


def pipeline(name: str) -> Any:
    """The pipeline function of that name (a kfp component).

    Raises:
        KeyError: There is none.
    """
    if name not in NAMES:
        raise KeyError(name)
    return getattr(import_module(f"pipelines.{name}"), name)
