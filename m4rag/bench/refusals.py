"""Tell a server that takes no question at all from one that refuses a few."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from m4rag.errors import Unavailable

if TYPE_CHECKING:
    from m4rag.vlm.client import Completion

FIRST = 128
"""So many requests refused, and none before them answered: more than share one bad image or one long context."""


class Refusals:
    """Watches the requests of one piece of work, in the order in which they are made.

    Args:
        url: The server.
        answered: Whether it answered something earlier; then it is not in doubt, and nothing is ever raised.
    """

    def __init__(self, url: str, *, answered: bool) -> None:
        self._url = url
        self._answered = answered
        self._asked = 0
        self._refused = 0
        self._reason = ""

    async def watch(self, request: Awaitable[Completion]) -> Completion:
        """What the request gives.

        Raises:
            RequestRefused: The server would not take this one.
            Unavailable: It would take none of the first 128.
        """
        from m4rag.vlm.client import RequestRefused

        self._asked += 1
        early = self._asked <= FIRST
        try:
            completion = await request
        except RequestRefused as error:
            self._refused += early
            self._reason = str(error)
            if self._refused == FIRST and not self._answered:
                raise self._useless() from None
            raise
        self._answered = True
        return completion

    def check(self) -> None:
        """To be called at the end of the work.

        Raises:
            Unavailable: There were fewer than 128 requests, and every one was refused.
        """
        if self._refused and not self._answered:
            raise self._useless()

    def _useless(self) -> Unavailable:
        return Unavailable(
            f"refused every one of the first {self._refused} requests: {self._reason}",
            where=self._url,
            remedy="Change what the server takes (images, length of context), then repeat the command: it continues.",
        )
