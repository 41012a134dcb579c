"""How many requests may be in flight: additive increase, multiplicative decrease (AIMD), as TCP does it.

vLLM queues what it cannot take at once, so the window starts at its most. A gateway or a rate limit before it sheds
load instead (HTTP 429, 503), and what is queued for too long times out. Then the window shrinks by a quarter, once for
all that was sent under the same window, and grows by one request for each full window that was answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SHRINK = 0.75


class Shed(Exception):
    """Raised inside `CongestionWindow.slot`: the server had no room for the request.

    Attributes:
        alone: Whether no other request was in flight: then the server has no room for anybody. Set by the window.
    """

    alone = True


class CongestionWindow:
    """Lets as many requests through as the server takes.

    Args:
        most: Requests in flight at most, and at the start. One is let through at any time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = float(most)
        self._in_flight = 0
        self._waiting = 0
        self._shrinks = 0
        self._room = asyncio.Condition()

    @property
    def size(self) -> int:
        """Requests that may be in flight now."""
        return int(self._size)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for room and hold it for one request.

        A block that ends well lets the window grow; `Shed` or `TimeoutError` lets it shrink; any other error says
        nothing about load.
        """
        if self._waiting or self._in_flight >= self.size:
            await self._wait()
        self._in_flight += 1
        sent_under = self._shrinks
        try:
            yield
        except (Shed, TimeoutError) as error:
            if isinstance(error, Shed):
                error.alone = self._in_flight == 1
            if sent_under == self._shrinks:
                self._shrinks += 1
                self._size = max(1.0, self._size * SHRINK)
            raise
        else:
            if self._waiting:  # a window in which there is room tells nothing about a larger one
                self._size = min(float(self._most), self._size + 1 / self._size)
        finally:
            self._in_flight -= 1
            if self._waiting:
                async with self._room:
                    self._room.notify(max(0, self.size - self._in_flight))

    async def _wait(self) -> None:
        async with self._room:
            self._waiting += 1
            try:
                await self._room.wait_for(lambda: self._in_flight < self.size)
            finally:
                self._waiting -= 1
