"""See `component`."""

from components.deploy.remove_vlm.component import remove_vlm

__all__ = ["remove_vlm"]
