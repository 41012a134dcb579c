"""Leaves a service that fails alone for a while, instead of making every request wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable

FAILURES = 3
OPEN_S = 5.0


class Breaker:
    """Open after so many failures in a row; then one call at a time may try whether it is well again.

    Args:
        failures: Failures in a row that open it.
        open_s: Seconds that it stays open before the next try.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, failures: int = FAILURES, open_s: float = OPEN_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = failures
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._next_try = 0.0

    @property
    def open(self) -> bool:
        """Whether the service counts as failed."""
        return self._failures >= self._most

    def allows(self) -> bool:
        """Whether a call may be made now. While open, a yes reserves the next try for the caller."""
        if not self.open:
            return True
        if self._clock() < self._next_try:
            return False
        self._next_try = self._clock() + self._open_s
        return True

    def succeeded(self) -> None:
        """The service answered."""
        self._failures = 0

    def failed(self) -> None:
        """The service did not answer."""
        self._failures += 1
        if self.open:
            self._next_try = self._clock() + self._open_s
