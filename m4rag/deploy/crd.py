"""Which of KServe's resources are installed, and which fields they have: the API changed between releases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

GROUP = "serving.kserve.io"
LLM_VERSIONS = ("v1alpha2", "v1alpha1")
"""Versions of LLMInferenceService that are understood, newest first."""


@dataclass(frozen=True, slots=True)
class CRDFields:
    """What the installed KServe understands.

    Attributes:
        inference_service: Whether InferenceService v1beta1 and ServingRuntime v1alpha1 are there.
        llm_version: Newest version of LLMInferenceService that is served, None without it.
        llm_rollout_strategy: Whether it has `rolloutStrategy` (KServe 0.21).
        llm_scaling_keda: Whether it has `scaling.keda` (KServe 0.21).
    """

    inference_service: bool
    llm_version: str | None
    llm_rollout_strategy: bool
    llm_scaling_keda: bool


def of_crds(crds: Iterable[Mapping[str, Any]]) -> CRDFields:
    """What a set of CustomResourceDefinition objects (apiextensions.k8s.io/v1) declares."""
    return _fields(
        {
            (version["name"], crd["spec"]["names"]["kind"]): version["schema"]["openAPIV3Schema"]
            for crd in crds
            if crd["spec"]["group"] == GROUP
            for version in crd["spec"]["versions"]
            if version["served"]
        }
    )


def of_openapi(document: Mapping[str, Any]) -> CRDFields:
    """What a server's OpenAPI document (version 2) declares. Any service account may read it; CRDs only some."""
    return _fields(
        {
            (kind["version"], kind["kind"]): schema
            for schema in document.get("definitions", {}).values()
            for kind in schema.get("x-kubernetes-group-version-kind", ())
            if kind["group"] == GROUP
        }
    )


def _fields(schemas: Mapping[tuple[str, str], Mapping[str, Any]]) -> CRDFields:
    version = next((one for one in LLM_VERSIONS if (one, "LLMInferenceService") in schemas), None)
    llm = schemas[version, "LLMInferenceService"] if version else {}
    return CRDFields(
        inference_service={("v1beta1", "InferenceService"), ("v1alpha1", "ServingRuntime")} <= schemas.keys(),
        llm_version=version,
        llm_rollout_strategy=_has(llm, "spec", "rolloutStrategy"),
        llm_scaling_keda=_has(llm, "spec", "scaling", "keda"),
    )


def _has(schema: Mapping[str, Any], *path: str) -> bool:
    for part in path:
        schema = schema.get("properties", {}).get(part)
        if schema is None:
            return False
    return True
