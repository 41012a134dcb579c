"""See `component`."""

from components.benchmark.score.component import score

__all__ = ["score"]
