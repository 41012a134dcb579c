"""Files that are made from others: `make golden` writes them, tests say when they are out of date."""

from __future__ import annotations

import os
from pathlib import Path


def check(made: str, golden: Path) -> None:
    """A made text is what its file holds; with M4RAG_REGENERATE=1 the file is written first."""
    if os.environ.get("M4RAG_REGENERATE") == "1":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(made, encoding="utf-8")
    assert golden.exists(), f"no {golden}: make golden, then review the diff"
    assert made == golden.read_text(encoding="utf-8"), (
        f"{golden.name} is out of date: make golden, then review the diff"
    )
