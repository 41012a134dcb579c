"""See `component`."""

from components.index.build.component import build_index

__all__ = ["build_index"]
