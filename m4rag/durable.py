"""Work that survives a crash: a result is on the disk before it is counted.

While work goes on, rows are appended to a log, one JSON line a row, and synced; a line torn by a crash is dropped when
the log is opened again. When every wanted row is there, the log becomes Parquet shards in a fixed order with a
manifest, so that the digest depends neither on the order in which rows came nor on how often the work was killed.

A failure is a row like any other, but it is not what was wanted: whenever the work is given again, it is asked for
again, also after the shards were written.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from pydantic import ValidationError

from m4rag.errors import BadData, M4ragError, Unavailable, UsageError
from m4rag.manifests import MANIFEST, Manifest
from m4rag.schema import Row
from m4rag.shards import PROGRESS, SHARD_ROWS, read_folder, write_folder

Item = TypeVar("Item")
R = TypeVar("R", bound=Row)

COMMIT_S = 0.1
"""Rows that come within this time are synced together: a sync costs as much CPU as an answer."""

BLOCK = 2**16

Report = Callable[[int], None]
"""Called with the number of units just finished."""

Key = tuple[str, ...]
"""What a row is known by: it is wanted once."""


class RowLog(Generic[R]):
    """Rows of one model, appended to a file as they come.

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
        """Open for appending, after cutting off a line that a crash left half-written.

        Raises:
            UsageError: Another process has it open.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise UsageError(
                "another process is writing it", where=str(self.path), remedy="Wait until that one has ended."
            ) from None
        os.ftruncate(descriptor, _whole_bytes(descriptor))
        os.lseek(descriptor, 0, os.SEEK_END)
        self._descriptor = descriptor
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

    def logged(self) -> Iterator[tuple[int, R]]:
        """Place in the file and row of every whole line, in the order in which they were written.

        Raises:
            BadData: A whole line is not a row of the model.
        """
        place = 0
        for number, line in enumerate(_lines(self.path), start=1):
            try:
                yield place, self._model.model_validate_json(line)
            except ValidationError as error:
                raise BadData(
                    f"not one of the {self._model.__name__} rows ({error.error_count()} errors)",
                    where=f"{self.path} line {number}",
                ) from None
            place += len(line)


class ResultLog(RowLog[R], ABC):
    """Rows of one model by key: appended to a log as they come, turned into shards when all are there.

    Args:
        folder: Folder of the shards; made if absent.
        name: File name of the log in this folder.
        model: Row model.
        made_by: Identity of the shards.
    """

    def __init__(self, folder: Path, name: str, model: type[R], made_by: Manifest) -> None:
        super().__init__(folder / name, model)
        self.folder = folder
        self._made_by = made_by

    @abstractmethod
    def key(self, row: R) -> Key:
        """What the row is known by."""

    @abstractmethod
    def failed(self, row: R) -> bool:
        """Whether the row says that there is no result, so that it is asked for again."""

    def done(self) -> set[Key]:
        """Keys of the rows that are there and no failures.

        Raises:
            BadData: A whole line of the log is not a row, or a key has two results.
        """
        logged: set[Key] = set()
        for _, row in self.logged():
            if self.failed(row):
                continue
            if self.key(row) in logged:
                raise BadData(f"{' '.join(self.key(row))}: two results", where=str(self.path))
            logged.add(self.key(row))
        return logged | {self.key(row) for row in self._shards() if not self.failed(row)}

    def finish(
        self,
        wanted: Sequence[Key],
        arrange: Callable[[Callable[[Key], R]], Iterable[R]],
        counts: Callable[[], dict[str, Any]] | None = None,
    ) -> Manifest:
        """Turn the log into shards, in place of those with failures that may be there.

        Args:
            wanted: Every key.
            arrange: Given a function from a key to its row (of a key that was asked for again, the last), makes the
                rows of the shards in their order.
            counts: Called after the last row for the manifest's `counts`.

        Returns:
            The manifest of the shards.

        Raises:
            BadData: A wanted row is missing.
        """
        if self._whole() and not self.path.exists():
            return Manifest.read(self.folder)
        self._copy_shards_to_log()
        places = {self.key(row): place for place, row in self.logged()}
        missing = [key for key in wanted if key not in places]
        if missing:
            raise BadData(f"{len(missing)} rows missing, first {' '.join(missing[0])}", where=str(self.folder))
        # Shards of the same identity that a killed call left may hold failures that the log has mended since.
        for name in (MANIFEST, PROGRESS):
            (self.folder / name).unlink(missing_ok=True)
        with self.path.open("rb") as log:

            def row(key: Key) -> R:
                log.seek(places[key])
                return self._model.model_validate_json(log.readline())

            manifest = write_folder(self.folder, self._model, arrange(row), self._made_by, counts=counts)
        self.path.unlink()
        return manifest

    def _copy_shards_to_log(self) -> None:
        """The shards are about to be replaced: until the new ones are whole, the log holds everything."""
        if not self._whole():
            return
        newer = {self.key(row) for _, row in self.logged()}
        older = (row for row in self._shards() if self.key(row) not in newer)
        with self:
            while rows := list(islice(older, SHARD_ROWS)):
                self.append(rows)

    def _whole(self) -> bool:
        manifest = self.folder / MANIFEST
        return manifest.exists() and Manifest.read(self.folder).identity == self._made_by.identity

    def _shards(self) -> Iterator[R]:
        return read_folder(self.folder, self._model) if self._whole() else iter(())


def _lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a log, nothing of one that does not exist; the last may be torn and is left out."""
    if not path.exists():
        return
    with path.open("rb") as log:
        yield from (line for line in log if line.endswith(b"\n"))


def _whole_bytes(descriptor: int) -> int:
    """Length of a log up to the end of its last whole line."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - BLOCK)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


@contextmanager
def _frozen() -> Iterator[None]:
    """What is in memory already outlives the work: looking it through for garbage was a tenth of the work's CPU."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


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
    waiting: list[R] = []
    ended = asyncio.Event()

    async def worker() -> None:
        for item in items:
            if writing.done():  # the disk is full: ask for nothing that can't be kept
                return
            waiting.append(await ask(item))

    async def writer() -> None:
        while waiting or not ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(COMMIT_S):
                    await ended.wait()
            if waiting:
                rows = waiting.copy()
                waiting.clear()
                await asyncio.to_thread(log.append, rows)
                progress(len(rows))

    with log, _frozen():
        writing = asyncio.create_task(writer())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(worker())
        except* M4ragError as errors:
            raise errors.exceptions[0] from None
        finally:
            ended.set()
            await writing
