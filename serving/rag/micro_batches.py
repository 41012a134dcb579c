"""Calls that arrive while one runs go together into the next: 64 queries cost Milvus little more than one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class MicroBatches(Generic[Item, Result]):
    """Gathers calls into batches. Nobody waits for a batch to fill: the first call starts at once.

    Args:
        run: Does the work of a batch; gives one result for each item, in order.
        size: Items in a batch at most.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], size: int) -> None:
        self._run = run
        self._size = size
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._working: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """The result for one item. A caller that goes away takes its item out of the next batch."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while batch := self._next():
                await self._answer(batch)
        finally:
            self._working = None

    def _next(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        there = [(item, future) for item, future in self._waiting if not future.done()]
        self._waiting = there[self._size :]
        return there[: self._size]

    async def _answer(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._run([item for item, _ in batch])
        except Exception as error:  # every caller of the batch gets it
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
