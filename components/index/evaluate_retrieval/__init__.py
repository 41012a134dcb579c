"""See `component`."""

from components.index.evaluate_retrieval.component import evaluate_retrieval

__all__ = ["evaluate_retrieval"]
