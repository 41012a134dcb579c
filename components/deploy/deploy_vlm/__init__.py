"""See `component`."""

from components.deploy.deploy_vlm.component import deploy_vlm

__all__ = ["deploy_vlm"]
