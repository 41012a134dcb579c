"""See `component`."""

from components.benchmark.run_benchmark.component import run_benchmark

__all__ = ["run_benchmark"]
