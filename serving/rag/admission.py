"""How many requests are answered at once, and how many may wait: overload is said at once, not by being slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.rag.problems import Problem


class Admission:
    """Lets so many requests through at once.

    Args:
        in_flight: Requests at once.
        waiting: Requests that wait at most.
        wait_s: Seconds that one waits at most.
    """

    def __init__(self, in_flight: int, waiting: int, wait_s: float) -> None:
        self._free = asyncio.Semaphore(in_flight)
        self._most_waiting = waiting
        self._wait_s = wait_s
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn.

        Raises:
            Problem: Too many are waiting, or it took too long (429).
        """
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
        try:
            yield
        finally:
            self._free.release()

    async def _wait(self) -> None:
        if self._waiting >= self._most_waiting:
            raise self._full()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise self._full() from None
        finally:
            self._waiting -= 1

    def _full(self) -> Problem:
        seconds = max(1, round(self._wait_s))
        return Problem(429, "Too many requests are waiting.", code="queue_full", retry_after_s=seconds)
