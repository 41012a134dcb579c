"""What `m4rag deploy preflight` says of a real API server, with nodes, quotas and secrets that the test puts there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from integration.control_plane import ControlPlane
from integration.test_deploy import RUNNER, connect, granted, m4rag

from m4rag.deploy import catalog
from m4rag.deploy.cluster import Cluster
from m4rag.deploy.preflight import Row, preflight

Object = dict[str, Any]

PATCH = "application/merge-patch+json"
H100 = catalog.hardware("h100x1")


def rows(cluster: Cluster, **more: Any) -> dict[str, Row]:
    asked = {"hardware": H100, "rules": RUNNER} | more
    return {row.check: row for row in preflight(cluster, **asked)}


@pytest.fixture
def pool(control_plane: ControlPlane, namespace: str) -> catalog.Hardware:
    """Two nodes of eight GPUs that only this test's profile selects; one is full, the other has two left."""
    label = {"pool": namespace}
    for number, taken in enumerate((8, 6)):
        name = f"{namespace}-{number}"
        taints = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
        node = {
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": {"name": name, "labels": label},
            "spec": {"taints": taints},
        }
        control_plane.request("POST", "/api/v1/nodes", node)
        # The server keeps new nodes away from pods until its controllers, which do not run here, say they are well.
        control_plane.request("PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": taints}}, kind=PATCH)
        status = {
            "allocatable": {"nvidia.com/gpu": "8"},
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        control_plane.request("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, kind=PATCH)
        resources = {"requests": {"nvidia.com/gpu": str(taken)}, "limits": {"nvidia.com/gpu": str(taken)}}
        pod = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"name": name},
            "spec": {"nodeName": name, "containers": [{"name": "c", "image": "i", "resources": resources}]},
        }
        control_plane.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod)
    return H100.model_copy(update={"node_selector": label})


def test_free_gpus_are_counted(control_plane: ControlPlane, namespace: str, pool: catalog.Hardware) -> None:
    cluster = connect(control_plane, namespace)
    found = rows(cluster, hardware=pool)["nodes for h100x1"]
    assert found.state == "ok"
    assert found.detail == "2 nvidia.com/gpu free on 2 nodes, 2 on one; a replica needs 1"

    four = rows(cluster, hardware=pool.model_copy(update={"gpus": 4}))["nodes for h100x1"]
    assert four.state == "missing"
    assert "a replica needs 4" in four.detail

    untolerated = rows(cluster, hardware=pool.model_copy(update={"tolerations": ()}))["nodes for h100x1"]
    assert untolerated.state == "missing"
    assert f"pool={namespace}" in untolerated.detail


def test_a_quota_without_room_is_told(control_plane: ControlPlane, namespace: str) -> None:
    cluster = connect(control_plane, namespace)
    assert rows(cluster)["quota"] == Row("quota", "ok", "none")
    quota = {
        "kind": "ResourceQuota",
        "apiVersion": "v1",
        "metadata": {"name": "gpus"},
        "spec": {"hard": {"requests.nvidia.com/gpu": "8", "requests.memory": "1Ti"}},
    }
    quotas = f"/api/v1/namespaces/{namespace}/resourcequotas"
    control_plane.request("POST", quotas, quota)
    used = {"hard": quota["spec"]["hard"], "used": {"requests.nvidia.com/gpu": "8", "requests.memory": "100Gi"}}
    control_plane.request("PATCH", f"{quotas}/gpus/status", {"status": used}, kind=PATCH)
    found = rows(cluster)["quota"]
    assert found.state == "missing"
    assert found.detail == "gpus: requests.nvidia.com/gpu has 8 of 8 used, 1 needed"


def test_secrets_and_storage_classes_are_looked_for(control_plane: ControlPlane, namespace: str) -> None:
    cluster = connect(control_plane, namespace)
    before = rows(cluster, secrets=["hub"], storage_class=namespace)
    assert before["secret hub"].state == "missing"
    assert "kubectl create secret generic hub" in before["secret hub"].remedy
    assert before["storage class"].state == "missing"
    secret = {
        "kind": "Secret",
        "apiVersion": "v1",
        "metadata": {"name": "hub"},
        "stringData": {"HF_TOKEN": "very-secret"},
    }
    control_plane.request("POST", f"/api/v1/namespaces/{namespace}/secrets", secret)
    storage = {
        "kind": "StorageClass",
        "apiVersion": "storage.k8s.io/v1",
        "metadata": {"name": namespace},
        "provisioner": "example.com/none",
    }
    control_plane.request("POST", "/apis/storage.k8s.io/v1/storageclasses", storage)
    after = rows(cluster, secrets=["hub"], storage_class=namespace)
    assert after["secret hub"] == Row("secret hub", "ok", "1 keys")
    assert after["storage class"].state == "ok"
    assert "very-secret" not in str(after)


def test_what_an_account_may_not_see_is_unknown_and_what_it_may_not_do_is_missing(
    control_plane: ControlPlane, namespace: str
) -> None:
    rules = [rule.model_dump() for rule in RUNNER]
    rules[0] = {**rules[0], "verbs": [verb for verb in rules[0]["verbs"] if verb != "delete"]}
    control_plane.grant(namespace, "pipeline-runner", rules)
    cluster = connect(control_plane, namespace, "pipeline-runner")
    granted(cluster, RUNNER[1:])
    found = rows(cluster)
    services = found["permission: inferenceservices.serving.kserve.io"]
    assert services.state == "missing"
    assert services.detail.startswith("may not delete (")
    assert found["permission: pods/log"].state == "ok"
    for check in ("nodes for h100x1", "quota", "storage class"):
        assert found[check].state == "unknown"
        assert found[check].remedy


def test_the_command_shows_a_table_and_fails_if_something_is_missing(
    control_plane: ControlPlane, namespace: str
) -> None:
    shown = m4rag(control_plane, namespace, "preflight", "--hardware", "cpu")
    assert shown.returncode == 1, shown.stderr
    assert "Kubernetes v1.20" in shown.stdout
    assert "no Gateway API" in shown.stdout
    listed = json.loads(m4rag(control_plane, namespace, "preflight", "--json", account="nobody").stdout)
    states = {row["check"]: row["state"] for row in listed}
    assert states["KServe"] == "ok"
    assert states["permission: pods"] == "missing"
    assert all(row["remedy"] for row in listed if row["state"] != "ok")


def test_an_llm_service_needs_its_kind(control_plane: ControlPlane, namespace: str) -> None:
    found = rows(connect(control_plane, namespace), profile="LLMInferenceService")["KServe"]
    assert found == Row("KServe", "ok", "LLMInferenceService v1alpha2, fields of KServe 0.21")
