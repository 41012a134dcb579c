"""Work that survives a crash: a result is on the disk before it is counted.

Rows are appended to a log and synced; a line torn by a crash is dropped when the log is opened again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from pydantic import ValidationError

from m4rag.errors import BadData, M4ragError, Unavailable
from m4rag.schema import Row

Item = TypeVar("Item")
R = TypeVar("R", bound=Row)

Report = Callable[[int], None]
"""Called with the number of units just finished."""


class RowLog(Generic[R]):
    """Append-only log of rows of one model, one JSON line a row.

    Args:
        path: The file; its folder is made if absent.
        model: Row model.
    """

    def __init__(self, path: Path, model: type[R]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._model = model
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Open for appending, after cutting off a line that a crash left half-written."""
        whole = sum(map(len, self._whole_lines()))
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.ftruncate(self._descriptor, whole)
        os.lseek(self._descriptor, 0, os.SEEK_END)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log; what was appended is already on the disk."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def append(self, rows: Sequence[R]) -> None:
        """Write rows and wait until the disk has them.

        Raises:
            Unavailable: The disk does not take them; what it took before is kept.
        """
        if self._descriptor is None:
            raise RuntimeError("the log is not open")
        data = b"".join(row.model_dump_json().encode() + b"\n" for row in rows)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise Unavailable(
                f"can't be written: {error.strerror}",
                where=str(self.path),
                remedy="Free some space and repeat the command: it continues.",
            ) from None

    def logged(self) -> Iterator[R]:
        """Every whole line, in the order in which it was written, one in memory at a time.

        Raises:
            BadData: A whole line is not a row of the model.
        """
        for number, line in enumerate(self._whole_lines()):
            try:
                yield self._model.model_validate_json(line)
            except ValidationError as error:
                raise BadData(
                    f"not one of the {self._model.__name__} rows ({error.error_count()} errors)",
                    where=f"{self.path} line {number + 1}",
                ) from None

    def _whole_lines(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as stream:
                yield from (line for line in stream if line.endswith(b"\n"))
        except FileNotFoundError:
            return


async def work(
    items: Iterator[Item],
    ask: Callable[[Item], Awaitable[R]],
    log: RowLog[R],
    concurrency: int,
    progress: Report,
) -> None:
    """Run `ask` over the items with bounded concurrency; every result is on the disk before it is reported.

    Raises:
        M4ragError: The first that `ask` raised, or that the disk is full; what was logged is kept.
    """
    results: asyncio.Queue[R | None] = asyncio.Queue()

    async def worker() -> None:
        for item in items:
            if writing.done():  # the disk is full: ask for nothing that can't be kept
                return
            await results.put(await ask(item))

    async def writer() -> None:
        ended = False
        while not ended:
            batch = [await results.get()]
            while not results.empty():
                batch.append(results.get_nowait())
            ended = batch[-1] is None
            rows = [row for row in batch if row is not None]
            await asyncio.to_thread(log.append, rows)
            progress(len(rows))

    with log:
        writing = asyncio.create_task(writer())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(worker())
        except* M4ragError as errors:
            raise errors.exceptions[0] from None
        finally:
            await results.put(None)
            await writing
