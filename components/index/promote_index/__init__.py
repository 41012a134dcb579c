"""See `component`."""

from components.index.promote_index.component import promote_index

__all__ = ["promote_index"]
