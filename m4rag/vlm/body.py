"""A JSON body for aiohttp that was never put together: its parts go to the socket as they are.

A picture is by far the largest part of a request and the same in many: it is copied by the kernel only.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import Payload
from aiohttp.abc import AbstractStreamWriter


class JsonParts(Payload):
    """A body of known length.

    Args:
        parts: Bytes that together are JSON in UTF-8.
    """

    _value: Sequence[bytes]

    def __init__(self, parts: Sequence[bytes]) -> None:
        super().__init__(parts, content_type="application/json")
        self._size = sum(map(len, parts))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The JSON text."""
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the parts one after another."""
        for part in self._value:
            await writer.write(part)
