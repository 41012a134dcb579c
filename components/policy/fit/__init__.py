"""See `component`."""

from components.policy.fit.component import fit_policy

__all__ = ["fit_policy"]
