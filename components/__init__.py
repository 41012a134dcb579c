"""Kubeflow components: thin adapters over m4rag, one folder each, all on one image.

A component's body only moves values between Kubeflow and a function of `m4rag`; it imports inside, because Kubeflow
copies its source into the pipeline. Addresses and secrets reach it as environment variables (`m4rag.settings`), so
they never stand in a run's parameters. What a step should find again if its pod is lost, or in the next run, it keeps
in M4RAG_HOME, and hands a copy on.
"""

import os

IMAGE = os.environ.get("M4RAG_IMAGE", "ghcr.io/m4rag/m4rag-python:0.1.0")
"""The image of every step; a site re-points it (to a digest of its own registry) with M4RAG_IMAGE when compiling."""
