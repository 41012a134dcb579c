"""Services of the table's models, as tests render them."""

from __future__ import annotations

from typing import Any

from m4rag.deploy import catalog
from m4rag.deploy.vlm_service import VLMService

COMMIT = "0123456789abcdef0123456789abcdef01234567"
IMAGE = f"vllm/vllm-openai@sha256:{'b' * 64}"


def service(model: str = "qwen2-5-vl-7b", **changes: Any) -> VLMService:
    """A model on its hardware, with weights from the hub; `changes` replace fields."""
    entry = catalog.model(model)
    values = {
        "name": f"{model}-0123abcd",
        "namespace": "m4rag",
        "model": entry,
        "uri": f"{entry.uri}:{COMMIT}",
        "hardware": catalog.hardware(entry.hardware),
        "image": IMAGE,
        "run": "museum-ca684015c7a0",
    }
    return VLMService(**(values | changes))
