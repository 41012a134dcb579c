"""What rendered objects are held against: published schemas, and rules that no schema knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import kserve_schemas
from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).resolve().parent / "fixtures" / "crd_schemas"
VERSIONS = ("1.31", "1.32", "1.33", "1.34")
"""Versions of Kubernetes that built-in objects are validated for."""

BUILT_IN = ("v1", "apps/", "batch/", "policy/", "autoscaling/", "networking.k8s.io/", "rbac.authorization.k8s.io/")

Object = dict[str, Any]


def problems(body: Object, versions: tuple[str, ...] = VERSIONS) -> list[str]:
    """What a server with strict field validation would refuse of an object: wrong values and unknown fields."""
    if body["apiVersion"].startswith(BUILT_IN):
        return [line for version in versions for line in _built_in_problems(body, version)]
    if (SCHEMAS / f"{body['kind']}.json").exists():
        return [f"{error.json_path}: {error.message}" for error in _validator(body["kind"]).iter_errors(body)]
    return kserve_schemas.problems(body)


def _built_in_problems(body: Object, version: str) -> list[str]:
    import kubernetes_validate

    try:
        kubernetes_validate.validate(body, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{version}: {'.'.join(map(str, error.path))}: {error.message}"]
    return []


@lru_cache(maxsize=16)
def _validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((SCHEMAS / f"{kind}.json").read_text(encoding="utf-8")))


def pods(body: Object) -> Iterator[Object]:
    """The pod specifications inside an object; of KServe's, as far as they are the object's own."""
    spec = body.get("spec", {})
    match body["kind"]:
        case "Deployment":
            yield spec["template"]["spec"]
        case "CronJob":
            yield spec["jobTemplate"]["spec"]["template"]["spec"]
        case "LLMInferenceService":
            yield spec["template"]


def containers(body: Object) -> Iterator[Object]:
    """The containers inside an object, a ServingRuntime's included."""
    if body["kind"] == "ServingRuntime":
        yield from body["spec"]["containers"]
    for pod in pods(body):
        yield from [*pod["containers"], *pod.get("initContainers", [])]


def label(body: Object) -> str:
    """How a message names an object."""
    return f"{body['kind']}/{body['metadata']['name']}"
