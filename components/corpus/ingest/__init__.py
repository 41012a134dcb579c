"""See `component`."""

from components.corpus.ingest.component import ingest

__all__ = ["ingest"]
