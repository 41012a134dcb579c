"""A real API server stores every rendered object as it was sent: nothing refused, nothing pruned, nothing added."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from deploy_services import service
from integration.control_plane import ControlPlane
from kserve_schemas import crds
from kubernetes import config

from m4rag.deploy import catalog, crd
from m4rag.deploy.vlm_service import Owner, Profile, Scaling, render

MODELS = sorted(catalog.catalog().models)
NEW = crd.of_crds(crds())
PLURAL = {
    "ServingRuntime": "servingruntimes",
    "InferenceService": "inferenceservices",
    "LLMInferenceService": "llminferenceservices",
}
APPLY = "application/apply-patch+yaml"


def apply(server: ControlPlane, body: dict[str, Any]) -> dict[str, Any]:
    place = f"/apis/{body['apiVersion']}/namespaces/{body['metadata']['namespace']}/{PLURAL[body['kind']]}"
    path = f"{place}/{body['metadata']['name']}?fieldManager=m4rag&fieldValidation=Strict"
    return server.request("PATCH", path, body, kind=APPLY)


def without_server_fields(stored: dict[str, Any]) -> dict[str, Any]:
    added = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")
    metadata = {key: value for key, value in stored["metadata"].items() if key not in added}
    return {key: value for key, value in stored.items() if key != "status"} | {"metadata": metadata}


def lost(sent: Any, stored: Any, path: str = "") -> list[str]:
    """What was sent and is not stored; a schema's defaults may come on top."""
    if isinstance(sent, dict):
        return [each for key, one in sent.items() for each in lost(one, stored.get(key), f"{path}.{key}")]
    if isinstance(sent, list) and isinstance(stored, list) and len(sent) == len(stored):
        return [each for i, pair in enumerate(zip(sent, stored, strict=True)) for each in lost(*pair, f"{path}[{i}]")]
    return [] if sent == stored else [f"{path}: {sent!r} became {stored!r}"]


@pytest.mark.parametrize("profile", ["InferenceService", "LLMInferenceService"])
def test_every_model_is_stored_as_it_was_sent(control_plane: ControlPlane, namespace: str, profile: Profile) -> None:
    for model in MODELS:
        for body in render(service(model, namespace=namespace, profile=profile), NEW):
            stored = apply(control_plane, body)
            assert without_server_fields(stored) == body
            again = apply(control_plane, body)
            assert again["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]


def test_every_field_is_stored_as_it_was_sent(control_plane: ControlPlane, namespace: str) -> None:
    scaling = Scaling(min_replicas=1, max_replicas=2, prometheus="http://prometheus:9090", requests_per_replica=8)
    everything: dict[str, Any] = {
        "namespace": namespace,
        "replicas": None,
        "expires_at": datetime(2026, 11, 22, tzinfo=UTC),
        "owner": Owner(api_version="v1", kind="Pod", name="launcher", uid="c0ffee"),
        "service_account": "weights",
        "stopped": True,
        "rollout": "replace",
    }
    for one in (service(**everything), service(profile="LLMInferenceService", scaling=scaling, **everything)):
        for body in render(one, NEW):
            assert lost(body, apply(control_plane, body)) == []


def test_an_older_version_is_stored_as_well(control_plane: ControlPlane, namespace: str) -> None:
    old = crd.CRDFields(True, "v1alpha1", False, False)
    (body,) = render(service(namespace=namespace, profile="LLMInferenceService"), old)
    assert without_server_fields(apply(control_plane, body)) == body


def test_another_spec_is_another_generation_and_a_later_expiry_is_not(
    control_plane: ControlPlane, namespace: str
) -> None:
    def generation(**changes: Any) -> int:
        body = render(service(namespace=namespace, **changes), NEW)[-1]
        return int(apply(control_plane, body)["metadata"]["generation"])

    first = generation(expires_at=datetime(2026, 11, 22, tzinfo=UTC))
    assert generation(expires_at=datetime(2026, 11, 23, tzinfo=UTC)) == first
    assert generation(timeout_s=30) == first + 1


def test_an_account_without_any_right_can_read_what_is_installed(control_plane: ControlPlane, namespace: str) -> None:
    """The document that every account may read says the same as the CRDs, which only some may."""
    client = config.new_client_from_config(str(control_plane.kubeconfig("nobody", namespace)))
    deadline = time.monotonic() + 60
    while True:
        answer = client.call_api(
            "/openapi/v2", "GET", auth_settings=["BearerToken"], response_type="object", _return_http_data_only=True
        )
        if crd.of_openapi(answer) == NEW:
            break
        assert time.monotonic() < deadline, crd.of_openapi(answer)  # the server writes it a while after the CRDs
        time.sleep(0.5)
