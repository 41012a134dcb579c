"""See `component`."""

from components.index.plan_index.component import plan_index

__all__ = ["plan_index"]
