"""See `component`."""

from components.policy.fit_policy.component import fit_policy

__all__ = ["fit_policy"]
