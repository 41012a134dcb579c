"""The API server that the other tests stand on is what they take it for."""

from __future__ import annotations

import urllib.error

import pytest
from integration.control_plane import ControlPlane


def test_it_serves_the_kserve_kinds(control_plane: ControlPlane, namespace: str) -> None:
    served = control_plane.request("GET", "/apis/serving.kserve.io/v1beta1")
    assert "inferenceservices" in {resource["name"] for resource in served["resources"]}
    listed = control_plane.request("GET", f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices")
    assert listed["items"] == []


def test_an_account_may_do_what_it_was_granted(control_plane: ControlPlane, namespace: str) -> None:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "system:serviceaccount:m4rag:audit",
            "resourceAttributes": {"namespace": namespace, "verb": "list", "resource": "pods"},
        },
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    assert not control_plane.request("POST", path, review)["status"]["allowed"]
    control_plane.grant(namespace, "audit", [{"group": "", "resources": ["pods"], "verbs": ["list"]}])
    assert control_plane.request("POST", path, review)["status"]["allowed"]


def test_it_refuses_what_the_schema_refuses(control_plane: ControlPlane, namespace: str) -> None:
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "wrong"},
        "spec": {"predictor": {"minReplicas": "two"}},
    }
    with pytest.raises(urllib.error.HTTPError) as refused:
        control_plane.request(
            "POST", f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices", service
        )
    assert refused.value.code == 422
