"""See `component`."""

from components.corpus.ingest.component import ingest_corpus

__all__ = ["ingest_corpus"]
