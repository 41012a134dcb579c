"""See `component`."""

from components.registry.register.component import register

__all__ = ["register"]
