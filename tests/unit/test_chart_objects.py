"""Every object that the chart makes: valid for its API, and fit to run in production."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from chart_rendering import PROFILES, named, of_kind, profile
from rendered_objects import containers, label, pods, problems

Object = dict[str, Any]

pytestmark = pytest.mark.parametrize("name", PROFILES)


@pytest.fixture
def objects(name: str) -> tuple[Object, ...]:
    return profile(name)


def test_a_server_with_strict_validation_takes_every_object(objects: tuple[Object, ...]) -> None:
    assert {label(one): found for one in objects if (found := problems(one))} == {}


def test_the_schemas_would_tell(objects: tuple[Object, ...]) -> None:
    """An unknown field is a problem in every kind that is rendered, so that none is validated by nothing."""
    for one in {one["kind"]: one for one in objects}.values():
        body = copy.deepcopy(one)
        place = body.get("spec", body)
        place["nmae"] = "x"
        assert problems(body, versions=("1.34",)), one["kind"]


def test_no_two_objects_are_the_same_one(objects: tuple[Object, ...]) -> None:
    names = [(one["apiVersion"], label(one)) for one in objects]
    assert len(names) == len(set(names))


def test_every_container_has_requests_limits_and_no_rights(objects: tuple[Object, ...]) -> None:
    """Pod Security `restricted`, and a read-only root file system except where NVIDIA's hook writes to it."""
    for one in objects:
        for container in containers(one):
            where = f"{label(one)} {container['name']}"
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, where
            assert security["capabilities"] == {"drop": ["ALL"]}, where
            gpu = one["kind"] in {"ServingRuntime", "LLMInferenceService"} and not security["readOnlyRootFilesystem"]
            assert gpu or security["readOnlyRootFilesystem"] is True, where
            resources = (
                _service_of(one, objects)["resources"] if one["kind"] == "ServingRuntime" else container["resources"]
            )
            for part in ("requests", "limits"):
                assert {"cpu", "memory"} <= resources[part].keys(), where


def test_every_pod_runs_as_somebody_with_an_account_of_its_own(objects: tuple[Object, ...]) -> None:
    accounts = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")}
    found = [(label(one), pod) for one in objects for pod in pods(one)]
    found += [(label(one), one["spec"]["predictor"]) for one in of_kind(objects, "InferenceService")]
    assert found
    for where, pod in found:
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}, where
        assert pod["serviceAccountName"] in accounts, where
        needs_token = where == "CronJob/m4rag-reaper"
        assert pod["automountServiceAccountToken"] is needs_token, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), where
        volumes = [volume for volume in pod.get("volumes", []) if volume.keys() - {"name", "emptyDir", "configMap"}]
        assert not volumes, where
    for account in of_kind(objects, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_images_are_pinned_except_in_development(objects: tuple[Object, ...], name: str) -> None:
    images = [container["image"] for one in objects for container in containers(one)]
    assert images
    assert all(re.search(r"@sha256:[0-9a-f]{64}$", image) for image in images) is (name != "dev")
    assert not [image for image in images if image.endswith(":latest")]


def test_what_serves_has_probes_and_time_to_end(objects: tuple[Object, ...]) -> None:
    """Grace period = leaving the route + the longest answer + exiting."""
    serving = of_kind(objects, "Deployment", "ServingRuntime", "LLMInferenceService")
    for one in serving:
        container = next(containers(one))
        pod = _service_of(one, objects, pod=True) if one["kind"] == "ServingRuntime" else next(pods(one))
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys(), label(one)
        leaving = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        if one["kind"] == "Deployment":
            variables = {entry["name"]: entry.get("value") for entry in container["env"]}
            finishing = int(variables["M4RAG_SERVE_DRAIN_S"])
        else:
            finishing = int(next(arg for arg in container["args"] if "--shutdown-timeout" in arg).split("=")[1])
        assert leaving >= 15
        assert pod["terminationGracePeriodSeconds"] > leaving + finishing, label(one)


def test_timeouts_are_in_order(objects: tuple[Object, ...]) -> None:
    """Whoever is further from the model waits longer: model <= its route, endpoint's reading <= the gateway's route."""
    for one in of_kind(objects, "InferenceService"):
        runtime = named(objects, "ServingRuntime", one["metadata"]["name"])
        assert f"--shutdown-timeout={one['spec']['predictor']['timeout']}" in runtime["spec"]["containers"][0]["args"]
    for route in of_kind(objects, "HTTPRoute"):
        container = next(containers(named(objects, "Deployment", route["metadata"]["name"])))
        variables = {entry["name"]: entry.get("value") for entry in container["env"]}
        for rule in route["spec"]["rules"]:
            seconds = {key: int(value.removesuffix("s")) for key, value in rule["timeouts"].items()}
            assert seconds["request"] >= seconds["backendRequest"] >= int(variables["M4RAG_SERVE_READ_TIMEOUT_S"])


def test_budgets_are_there_for_what_has_replicas(objects: tuple[Object, ...]) -> None:
    several = {
        one["metadata"]["name"]
        for one in of_kind(objects, "InferenceService", "LLMInferenceService")
        if _replicas(one, objects) > 1
    }
    for one in of_kind(objects, "Deployment"):
        if _replicas(one, objects) > 1:
            several.add(one["metadata"]["name"])
    budgets = {one["metadata"]["name"] for one in of_kind(objects, "PodDisruptionBudget")}
    assert budgets == several


def test_every_scaler_has_a_target_and_every_replica_one_owner(objects: tuple[Object, ...]) -> None:
    made = {f"{one['metadata']['name']}-predictor": one for one in of_kind(objects, "InferenceService")}
    made |= {f"{one['metadata']['name']}-kserve": one for one in of_kind(objects, "LLMInferenceService")}
    made |= {one["metadata"]["name"]: one for one in of_kind(objects, "Deployment")}
    targets = [
        one["spec"]["scaleTargetRef"]["name"] for one in of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler")
    ]
    assert len(targets) == len(set(targets))
    for target in targets:
        spec = made[target]["spec"]
        assert "replicas" not in spec
        assert not {"minReplicas", "maxReplicas"} & spec.get("predictor", {}).keys()


def test_nothing_secret_is_a_value(objects: tuple[Object, ...]) -> None:
    assert not of_kind(objects, "Secret")
    for one in objects:
        for container in containers(one):
            for entry in container.get("env", []):
                if re.search("TOKEN|KEY|SECRET|PASSWORD", entry["name"]):
                    assert "secretKeyRef" in entry["valueFrom"], f"{label(one)} {entry['name']}"


def test_models_are_reached_by_name_and_reach_nothing(objects: tuple[Object, ...], name: str) -> None:
    policies = of_kind(objects, "NetworkPolicy")
    models = {"matchExpressions": [{"key": "m4rag.io/model", "operator": "Exists"}]}
    egress = [
        one["spec"]
        for one in policies
        if one["spec"]["podSelector"] == models and "Egress" in one["spec"]["policyTypes"]
    ]
    assert {"podSelector": models, "policyTypes": ["Ingress", "Egress"]} in egress
    reached = [peer for spec in egress for rule in spec.get("egress", []) for peer in rule["to"]]
    dns = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    ranges = {"dev": ["0.0.0.0/0"], "everything": ["192.0.2.0/24"]}.get(name, [])
    assert reached == [dns, *({"ipBlock": {"cidr": cidr}} for cidr in ranges)]
    for one in policies:
        for rule in [*one["spec"].get("ingress", []), *one["spec"].get("egress", [])]:
            assert rule.get("from") or rule.get("to"), f"{label(one)} allows everybody"


def test_the_endpoint_reaches_models_milvus_and_what_is_named(objects: tuple[Object, ...], name: str) -> None:
    policy = named(objects, "NetworkPolicy", "m4rag-endpoint-to-models-and-milvus")["spec"]
    assert policy["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "rag-endpoint"
    models = {"podSelector": {"matchExpressions": [{"key": "m4rag.io/model", "operator": "Exists"}]}}
    gateway = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateway-system"}}}
    milvus = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "milvus"}}}
    more = [gateway, {"ipBlock": {"cidr": "198.51.100.7/32"}}] if name == "everything" else []
    assert [peer for rule in policy["egress"] for peer in rule["to"]] == [models, *more, milvus]


def test_the_steps_of_pipelines_find_their_addresses(objects: tuple[Object, ...], name: str) -> None:
    data = named(objects, "ConfigMap", "m4rag")["data"]
    assert all(data.values()), "an empty address would be taken for one"
    always = {"MILVUS_URI", "MLFLOW_TRACKING_URI", "M4RAG_VLM_URL", "M4RAG_VLLM_IMAGE", "M4RAG_HOME"}
    judge = {"M4RAG_JUDGE_URL"} if name == "everything" else set()
    embeds = {"M4RAG_EMBEDDING_URL"} if name in {"h100", "everything"} else set()
    assert data.keys() == always | judge | embeds
    assert data.get("M4RAG_EMBEDDING_URL") in {None, "http://embedder-predictor/v1"}
    assert data["M4RAG_VLM_URL"] == ("http://vlm.example/v1" if name == "default" else "http://vlm-predictor/v1")
    for container in containers(named(objects, "Deployment", "rag-endpoint")):
        keys = {entry["name"]: entry["valueFrom"]["configMapKeyRef"] for entry in container["env"] if _from_map(entry)}
        assert {reference["key"] for reference in keys.values() if not reference.get("optional")} <= data.keys()


def _from_map(entry: Object) -> bool:
    return "configMapKeyRef" in entry.get("valueFrom", {})


def _service_of(runtime: Object, objects: tuple[Object, ...], *, pod: bool = False) -> Object:
    predictor: Object = named(objects, "InferenceService", runtime["metadata"]["name"])["spec"]["predictor"]
    found: Object = predictor if pod else predictor["model"]
    return found


def _replicas(one: Object, objects: tuple[Object, ...]) -> int:
    spec = one["spec"]
    given = spec.get("replicas") or spec.get("predictor", {}).get("minReplicas")
    if given:
        return int(given)
    suffix = {"InferenceService": "-predictor", "LLMInferenceService": "-kserve"}.get(one["kind"], "")
    target = one["metadata"]["name"] + suffix
    scaler = next(
        scaler["spec"]
        for scaler in of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler")
        if scaler["spec"]["scaleTargetRef"]["name"] == target
    )
    return int(scaler.get("minReplicaCount") or scaler["minReplicas"])
