"""How every command speaks: results on stdout (a table, or JSON with `--json`), everything else on stderr."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]

LOG_EVERY_S = 10.0


def emit(payload: Any, as_json: bool, render: Callable[[Console], None]) -> None:
    """Print a result: the payload as JSON, or whatever `render` prints for a person."""
    if as_json:
        sys.stdout.write(jsonlib.dumps(payload, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return
    from rich.console import Console

    render(Console(soft_wrap=False))


def say(message: str) -> None:
    """One line to the person at the terminal, on stderr so that stdout stays data."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def progress(label: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how far long work is: a bar on a terminal, one line per ten seconds elsewhere.

    Args:
        label: What is going on, as a noun phrase ("answers").
        total: Units in all, None if unknown.
        done: Units that an earlier run finished.

    Yields:
        A function to call with the number of units just finished.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total, completed=done)
            yield lambda units: bar.advance(task, units)
        return

    count, last = done, time.monotonic()

    def advance(units: int) -> None:
        nonlocal count, last
        count += units
        if time.monotonic() - last >= LOG_EVERY_S:
            last = time.monotonic()
            say(f"{label}: {count}" if total is None else f"{label}: {count}/{total}")

    yield advance
    say(f"{label}: {count} done" if count else f"{label}: nothing to do")
