"""How library code shows long work without knowing who watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """Starts to show one piece of long work; `m4rag.cli.output.progress` is the one that people see."""

    def __call__(self, label: str, total: int | None, done: int = 0) -> AbstractContextManager[Callable[[int], None]]:
        """Show work for the time of a block.

        Args:
            label: What is counted, as a noun phrase ("answers").
            total: Units in all, None if unknown.
            done: Units that an earlier call finished.

        Returns:
            A context manager that gives a function to call with the number of units just finished.
        """
        ...


@contextmanager
def silent(label: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:  # noqa: ARG001
    """`Progress` for nobody."""
    yield lambda _: None
