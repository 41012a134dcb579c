"""See `component`."""

from components.benchmark.plan_benchmark.component import plan_benchmark

__all__ = ["plan_benchmark"]
