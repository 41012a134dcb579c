"""See `component`."""

from components.registry.record.component import record_run

__all__ = ["record_run"]
