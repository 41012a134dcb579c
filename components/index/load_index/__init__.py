"""See `component`."""

from components.index.load_index.component import load_index

__all__ = ["load_index"]
