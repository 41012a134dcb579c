"""See `component`."""

from components.benchmark.run.component import run_benchmark

__all__ = ["run_benchmark"]
