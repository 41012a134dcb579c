"""Helm installs, upgrades and rolls back the chart on a real API server.

The server of the tests is a Kubernetes 1.20: what it lacks (autoscaling/v2, policy/v1, batch/v1 CronJobs, a sleep
before SIGTERM, Gateway API and the operators' resources) is switched off here and validated offline by the unit tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import helm_python
import pytest
import yaml
from chart_rendering import CHART, DIGEST, PROFILES, REPOSITORY, merged, render
from integration.control_plane import ControlPlane

Object = dict[str, Any]

OLD_SERVER: Object = {
    "rag": {"autoscaling": {"enabled": False}, "preStopSeconds": 0},
    "reaper": {"enabled": False},
    "route": {"enabled": False},
    "podDisruptionBudgets": {"enabled": False},
    "externalSecret": {"enabled": False},
    "monitoring": {"monitors": False, "rules": False},
    "modelDefaults": {"scaling": {"by": "none"}},
}

PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps/",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts/",
    "Service": "/api/v1/namespaces/{}/services/",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments/",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies/",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles/",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings/",
    "ServingRuntime": "/apis/serving.kserve.io/v1alpha1/namespaces/{}/servingruntimes/",
    "InferenceService": "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices/",
    "LLMInferenceService": "/apis/serving.kserve.io/v1alpha2/namespaces/{}/llminferenceservices/",
}


def for_old_server(values: Object) -> Object:
    """Values without what a 1.20 server lacks."""
    models = [
        {key: value for key, value in one.items() if key not in {"scaling", "localCache"}}
        for one in values.get("models", [])
    ]
    return merged(values, OLD_SERVER) | {"models": models}


@pytest.fixture
def helm(control_plane: ControlPlane, namespace: str) -> Iterator[helm_python.Config]:
    kubeconfig = control_plane.kubeconfig("admin", namespace)
    with helm_python.Config(kubeconfig_path=str(kubeconfig), namespace=namespace) as config:
        yield config


def stored(control_plane: ControlPlane, namespace: str, sent: Object) -> Object:
    """The object as the server has it."""
    path = PATHS[sent["kind"]].format(namespace) + sent["metadata"]["name"]
    return control_plane.request("GET", path)


def lost(sent: Any, kept: Any, path: str = "") -> list[str]:
    """What was sent and is not there: what the server does not know, it prunes in silence."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        return [
            line
            for key, value in sent.items()
            for line in ([f"{path}.{key}"] if key not in kept else lost(value, kept[key], f"{path}.{key}"))
        ]
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        return [
            line for i, (one, two) in enumerate(zip(sent, kept, strict=True)) for line in lost(one, two, f"{path}[{i}]")
        ]
    return [] if sent == kept else [f"{path}: {sent!r} became {kept!r}"]


@pytest.mark.parametrize("name", PROFILES)
def test_a_server_keeps_every_field_of_every_object(
    name: str, helm: helm_python.Config, control_plane: ControlPlane, namespace: str
) -> None:
    values = for_old_server(PROFILES[name])
    release = helm.install(str(CHART), "m4rag", values)
    assert release["status"] == "deployed"
    objects = render(values, namespace=namespace)
    assert objects
    found = {
        f"{one['kind']}/{one['metadata']['name']}": lost(one, stored(control_plane, namespace, one)) for one in objects
    }
    assert {key: lines for key, lines in found.items() if lines} == {}


def test_install_upgrade_roll_back_uninstall(
    helm: helm_python.Config, control_plane: ControlPlane, namespace: str
) -> None:
    first = for_old_server(PROFILES["h100"])
    second = merged(
        first, {"images": {"endpoint": f"registry.example/m4rag/m4rag-endpoint{DIGEST}"}, "rag": {"replicas": 3}}
    )
    second["models"] = [one | {"timeoutSeconds": 120} for one in first["models"][:1]]

    def deployment() -> Object:
        found = stored(control_plane, namespace, {"kind": "Deployment", "metadata": {"name": "rag-endpoint"}})
        spec: Object = found["spec"]
        return spec

    def service(name: str) -> Object:
        return stored(control_plane, namespace, {"kind": "InferenceService", "metadata": {"name": name}})

    assert helm.install(str(CHART), "m4rag", first)["revision"] == 1
    before = (deployment(), service("vlm")["spec"])

    assert helm.upgrade(str(CHART), "m4rag", first)["revision"] == 2
    assert service("vlm")["metadata"]["generation"] == 1, "the same values change nothing"

    assert helm.upgrade(str(CHART), "m4rag", second)["revision"] == 3
    assert deployment()["replicas"] == 3
    assert deployment()["template"]["spec"]["containers"][0]["image"].endswith(DIGEST)
    assert service("vlm")["spec"]["predictor"]["timeout"] == 120
    assert service("vlm")["metadata"]["generation"] == 2
    with pytest.raises(Exception, match="404"):
        service("vlm-large")

    helm.rollback("m4rag", version=1)
    assert (deployment(), service("vlm")["spec"]) == before
    assert service("vlm-large")["spec"]
    assert [one["status"] for one in helm.history("m4rag")][-1] == "deployed"

    helm.uninstall("m4rag")
    left = [
        item["metadata"]["name"]
        for kind, path in PATHS.items()
        for item in control_plane.request("GET", path.format(namespace).rstrip("/"))["items"]
        if item["metadata"]["name"] not in {"default", "kube-root-ca.crt"}
    ]
    assert left == []


def test_the_server_grants_what_the_table_says_and_nothing_more(
    helm: helm_python.Config, control_plane: ControlPlane, namespace: str
) -> None:
    table = yaml.safe_load((REPOSITORY / "m4rag" / "deploy" / "permissions.yaml").read_text(encoding="utf-8"))
    helm.install(str(CHART), "m4rag", for_old_server(PROFILES["everything"]))

    def allowed(account: str, group: str, resource: str, verb: str) -> bool:
        resource, _, subresource = resource.partition("/")
        asked = {"namespace": namespace, "group": group, "resource": resource, "subresource": subresource, "verb": verb}
        body = {"spec": {"user": f"system:serviceaccount:{namespace}:{account}", "resourceAttributes": asked}}
        answer = control_plane.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
        return bool(answer["status"]["allowed"])

    resources = {(rule["group"], one) for rules in table.values() for rule in rules for one in rule["resources"]}
    resources |= {("", "secrets"), ("", "configmaps"), ("", "nodes"), ("", "pods/exec"), ("apps", "deployments")}
    verbs = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
    for account, rules in table.items():
        name = account if account == "pipeline-runner" else f"m4rag-{account}"
        wanted = {(rule["group"], one, verb) for rule in rules for one in rule["resources"] for verb in rule["verbs"]}
        granted = {(*one, verb) for one in resources for verb in verbs if allowed(name, *one, verb)}
        assert granted == wanted, account
    assert not [one for one in resources for verb in verbs if allowed("m4rag-models", *one, verb)]


def test_a_release_that_the_schema_refuses_touches_nothing(
    helm: helm_python.Config, control_plane: ControlPlane, namespace: str
) -> None:
    with pytest.raises(helm_python.HelmError, match="replcas"):
        helm.install(str(CHART), "m4rag", merged(for_old_server(PROFILES["h100"]), {"rag": {"replcas": 3}}))
    assert control_plane.request("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments")["items"] == []
