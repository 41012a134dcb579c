"""See `component`."""

from components.index.chunk.component import chunk

__all__ = ["chunk"]
