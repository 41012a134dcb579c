"""See `component`."""

from components.corpus.fingerprint.component import fingerprint

__all__ = ["fingerprint"]
