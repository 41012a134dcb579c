"""See `component`."""

from components.benchmark.judge.component import judge

__all__ = ["judge"]
