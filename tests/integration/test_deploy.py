"""Services on a real API server: deployed, waited for, proven, told about, removed. The test plays KServe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from content_server import model_server
from deploy_cases import Case, cases, objects
from integration.control_plane import ControlPlane
from integration.kserve_player import Player, playing

from m4rag.deploy import catalog, names, permissions, removal
from m4rag.deploy.cluster import INFERENCE_SERVICE, LLM_INFERENCE_SERVICE, SERVING_RUNTIME, Cluster
from m4rag.deploy.deployment import Deployed, conditions, deploy, workflow_of
from m4rag.deploy.refusals import Denied
from m4rag.deploy.vlm_service import Profile, VLMService
from m4rag.errors import BadData, CheckFailed, Unavailable, UsageError

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = "qwen2-5-vl-7b"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
IMAGE = f"registry.example/vllm@sha256:{'0' * 64}"

Object = dict[str, Any]


@pytest.fixture(scope="module")
def model_url() -> Iterator[str]:
    """A server that answers under the model's name, without the `/v1` of its address."""
    with model_server(lambda body: "Red.", catalog.model(MODEL).served_name) as url:
        yield url.removesuffix("/v1")


@pytest.fixture
def player(control_plane: ControlPlane, namespace: str, model_url: str) -> Iterator[Player]:
    with playing(control_plane, namespace, model_url) as player:
        yield player


def connect(server: ControlPlane, namespace: str, account: str = "admin") -> Cluster:
    return Cluster.connect(server.kubeconfig(account, namespace))


@pytest.fixture
def cluster(control_plane: ControlPlane, namespace: str) -> Cluster:
    return connect(control_plane, namespace)


def service(namespace: str, *, run: str = "run-1", profile: Profile = "InferenceService", **more: Any) -> VLMService:
    model = catalog.model(MODEL)
    made = {
        "name": names.service_name(model.name, run),
        "namespace": namespace,
        "model": model,
        "uri": f"{model.uri}:{COMMIT}",
        "hardware": catalog.hardware(model.hardware),
        "image": IMAGE,
        "profile": profile,
        "run": run,
    }
    return VLMService.model_validate(made | more)


def put(cluster: Cluster, made: VLMService) -> Deployed:
    return deploy(cluster, made, say=lambda _: None, wait_s=120)


def m4rag(
    server: ControlPlane, namespace: str, *words: str, account: str = "admin"
) -> subprocess.CompletedProcess[str]:
    """The command line as a user runs it."""
    command = [sys.executable, "-m", "m4rag.cli", "deploy", *words]
    return subprocess.run(
        command, env=environment(server, namespace, account), text=True, capture_output=True, timeout=300
    )


def environment(server: ControlPlane, namespace: str, account: str = "admin") -> dict[str, str]:
    kubeconfig = str(server.kubeconfig(account, namespace))
    return os.environ | {"KUBECONFIG": kubeconfig, "PYTHONPATH": str(REPOSITORY), "M4RAG_VLLM_IMAGE": IMAGE}


def test_the_command_deploys_and_removes(control_plane: ControlPlane, namespace: str, player: Player) -> None:
    words = ("vlm", MODEL, "--revision", COMMIT, "--run", "nightly")
    done = m4rag(control_plane, namespace, *words)
    assert done.returncode == 0, done.stderr
    name = names.service_name(MODEL, "nightly")
    assert f"InferenceService {namespace}/{name}: created" in done.stdout
    assert "'Red.'" in done.stdout
    assert "loads the model" in done.stderr

    again = json.loads(m4rag(control_plane, namespace, *words, "--json").stdout)
    assert again["outcome"] == "unchanged"
    assert again["proof"]["answer"] == "Red."
    assert again["images"] == [f"vllm@sha256:{'0' * 64}"]
    assert player.pods == 1

    status = m4rag(control_plane, namespace, "status")
    assert status.returncode == 0
    assert f"InferenceService {name}: ready (ready)" in status.stdout

    removed = m4rag(control_plane, namespace, "remove", "--run", "nightly")
    assert removed.returncode == 0, removed.stderr
    assert removed.stdout.splitlines() == [
        f"removed InferenceService {name} of run nightly",
        f"removed ServingRuntime {name} of run nightly",
    ]
    nothing = m4rag(control_plane, namespace, "remove", "--run", "nightly")
    assert (nothing.returncode, nothing.stdout.strip()) == (0, "there was nothing to remove")


@pytest.mark.parametrize("profile", ["InferenceService", "LLMInferenceService"])
def test_the_same_spec_changes_nothing_and_another_rolls(
    cluster: Cluster, namespace: str, player: Player, profile: Profile
) -> None:
    kind = INFERENCE_SERVICE if profile == "InferenceService" else LLM_INFERENCE_SERVICE
    made = service(namespace, profile=profile)
    first = put(cluster, made.model_copy(update={"expires_at": datetime.now(UTC) + timedelta(hours=1)}))
    generation = cluster.get(kind, made.name)["metadata"]["generation"]  # type: ignore[index]
    second = put(cluster, made.model_copy(update={"expires_at": datetime.now(UTC) + timedelta(hours=2)}))
    kept = cluster.get(kind, made.name)
    assert kept is not None
    assert (first.outcome, second.outcome) == ("created", "unchanged")
    assert kept["metadata"]["generation"] == generation
    assert names.EXPIRES_AT in kept["metadata"]["annotations"]
    assert player.pods == 1

    third = put(cluster, made.model_copy(update={"timeout_s": 300, "expires_at": datetime.now(UTC)}))
    assert (third.outcome, player.pods) == ("changed", 2)
    assert third.spec != first.spec


def test_fifty_at_once_do_not_collide(
    control_plane: ControlPlane, namespace: str, player: Player, model_url: str
) -> None:
    runs = [f"run-{number}" for number in range(40)] + ["shared"] * 10
    clusters = [connect(control_plane, namespace) for _ in runs]
    with ThreadPoolExecutor(len(runs)) as pool:
        started = pool.map(
            lambda one: deploy(*one, say=lambda _: None, wait_s=400), zip_services(clusters, runs, namespace)
        )
        deployed = list(started)
    assert len({one.name for one in deployed}) == 41
    assert sum(one.name == deployed[-1].name for one in deployed) == 10
    assert player.pods == 41
    assert all(one.proof.answer == "Red." for one in deployed)
    removed = removal.remove(clusters[0], run="shared", say=lambda _: None)
    assert [one.kind for one in removed] == ["InferenceService", "ServingRuntime"]
    assert len(conditions(clusters[0])) == 40


def zip_services(clusters: list[Cluster], runs: list[str], namespace: str) -> list[tuple[Cluster, VLMService]]:
    return [(cluster, service(namespace, run=run)) for cluster, run in zip(clusters, runs, strict=True)]


def created(server: ControlPlane, namespace: str, case: Case, name: str) -> None:
    """The objects of a case on the server, as its controllers would have left them."""
    made, pods, events = objects(case, name)
    kind = INFERENCE_SERVICE if made["kind"] == "InferenceService" else LLM_INFERENCE_SERVICE
    services = f"{kind.root}/namespaces/{namespace}/{kind.plural}"
    server.request("POST", services, made)
    patch = "application/merge-patch+json"
    if "status" in made:
        server.request("PATCH", f"{services}/{name}/status", {"status": made["status"]}, kind=patch)
    base = f"/api/v1/namespaces/{namespace}"
    for pod in pods:
        server.request("POST", f"{base}/pods", pod)
        path = f"{base}/pods/{pod['metadata']['name']}/status"
        server.request("PATCH", path, {"status": pod["status"]}, kind=patch)
    for event in events:
        event["metadata"]["namespace"] = namespace
        event["involvedObject"]["namespace"] = namespace
        server.request("POST", f"{base}/events", event)


def test_every_state_is_told_by_the_command(control_plane: ControlPlane, namespace: str) -> None:
    made = {f"case-{number}": case for number, case in enumerate(cases().values())}
    for name, case in made.items():
        created(control_plane, namespace, cases()[case.id], name)  # with times that count from now
    control_plane.grant(namespace, "audit", [rule.model_dump() for rule in permissions.rules("audit")])
    found = json.loads(m4rag(control_plane, namespace, "status", "--json", account="audit").stdout)
    told = {one["name"]: one["diagnosis"] for one in found}
    assert told.keys() == made.keys()
    for name, case in made.items():
        assert (told[name]["category"], told[name]["level"]) == (case.category, case.level), case.id
        assert [words for words in case.says if words not in told[name]["summary"]] == [], case.id

    shown = m4rag(control_plane, namespace, "status", account="audit")
    assert shown.returncode == 1
    assert shown.stderr == ""
    for name, case in made.items():
        one = shown.stdout.split(f" {name}: {case.level} ({case.category})\n")[1].split("Service case-")[0]
        assert [words for words in case.says if words not in one] == [], case.id
        assert told[name]["resolution"] in one


def test_waiting_ends_where_it_cannot_help(
    control_plane: ControlPlane, cluster: Cluster, namespace: str, player: Player
) -> None:
    player.hold.set()
    made = service(namespace)
    heard: list[str] = []

    def break_it() -> None:
        while not any("loads the model" in line for line in heard):
            time.sleep(0.05)
        pods = control_plane.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
        path = f"/api/v1/namespaces/{namespace}/pods/{pods[0]['metadata']['name']}/status"
        ended = {"exitCode": 1, "reason": "Error", "message": "ValueError: no room for the cache\n"}
        waits = {"reason": "CrashLoopBackOff", "message": "back-off"}
        status = pods[0]["status"]["containerStatuses"][0] | {
            "state": {"waiting": waits},
            "lastState": {"terminated": ended},
            "restartCount": 3,
        }
        patch = {"status": {"containerStatuses": [status]}}
        control_plane.request("PATCH", path, patch, kind="application/merge-patch+json")

    breaker = threading.Thread(target=break_it)
    breaker.start()
    with pytest.raises(CheckFailed, match=r"exit code 1, 3 restarts.*ValueError: no room for the cache"):
        deploy(cluster, made, say=heard.append, wait_s=120)
    breaker.join()


def test_an_interrupted_deploy_goes_on(control_plane: ControlPlane, namespace: str, player: Player) -> None:
    player.hold.set()
    words = ["vlm", MODEL, "--revision", COMMIT, "--name", "kept"]
    command = [sys.executable, "-m", "m4rag.cli", "deploy", *words]
    started = subprocess.Popen(command, env=environment(control_plane, namespace), stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    for line in started.stderr:
        if "loads the model" in line:
            break
    started.send_signal(signal.SIGINT)
    rest = started.stderr.read()
    assert started.wait(60) == 130
    assert "the same command continues" in rest
    player.hold.clear()
    done = m4rag(control_plane, namespace, *words)
    assert done.returncode == 0, done.stderr
    assert "unchanged" in done.stdout
    assert player.pods == 1


def test_a_field_that_the_cluster_does_not_know_is_refused_by_name(cluster: Cluster, namespace: str) -> None:
    manifest = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "new"},
        "spec": {"predictor": {"minReplicas": 1, "teleport": True, "containers": [{"name": "c", "speed": 3}]}},
    }
    with pytest.raises(BadData, match=r"no field .*\.spec\.predictor\.teleport") as refused:
        cluster.apply(manifest)
    assert ".spec.predictor.containers[0].speed" in str(refused.value)
    assert cluster.get(INFERENCE_SERVICE, "new") is None


def test_a_wrong_value_is_refused_by_its_field(cluster: Cluster) -> None:
    manifest = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "wrong"},
        "spec": {"predictor": {"minReplicas": "two"}},
    }
    with pytest.raises(BadData, match=r"spec\.predictor\.minReplicas"):
        cluster.apply(manifest)


def test_a_field_of_another_manager_is_told_with_its_owner(
    control_plane: ControlPlane, cluster: Cluster, namespace: str, player: Player
) -> None:
    made = service(namespace)
    put(cluster, made)
    path = f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices/{made.name}"
    theirs = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "spec": {"predictor": {"minReplicas": 3}},
    }
    control_plane.request(
        "PATCH", f"{path}?fieldManager=somebody&force=true", theirs, kind="application/apply-patch+yaml"
    )
    with pytest.raises(CheckFailed, match=r"\.spec\.predictor\.minReplicas belongs to `somebody`"):
        put(cluster, made)


def test_a_service_that_is_not_ours_is_left_alone(
    control_plane: ControlPlane, cluster: Cluster, namespace: str
) -> None:
    made = service(namespace)
    theirs = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": made.name},
        "spec": {"predictor": {"minReplicas": 1}},
    }
    path = f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices"
    control_plane.request("POST", path, theirs)
    with pytest.raises(UsageError, match="m4rag did not make"):
        put(cluster, made)
    assert removal.remove(cluster, name=made.name, say=lambda _: None) == []


def test_what_expired_is_reaped_and_nothing_else(
    control_plane: ControlPlane, cluster: Cluster, namespace: str, player: Player
) -> None:
    now = datetime.now(UTC)
    for run, expires in (("old", now - timedelta(hours=1)), ("new", now + timedelta(hours=1)), ("stays", None)):
        put(cluster, service(namespace, run=run, expires_at=expires))
    control_plane.grant(namespace, "reaper", [rule.model_dump() for rule in permissions.rules("reaper")])
    reaper = connect(control_plane, namespace, "reaper")
    granted(reaper, permissions.rules("reaper"))
    assert [(one.kind, one.run) for one in removal.reap(reaper, now)] == [
        ("InferenceService", "old"),
        ("ServingRuntime", "old"),
    ]
    assert {one.run for one in conditions(cluster) if one.diagnosis.category != "deleting"} == {"new", "stays"}


def test_pods_that_stay_are_named(
    control_plane: ControlPlane, cluster: Cluster, namespace: str, player: Player
) -> None:
    made = service(namespace)
    put(cluster, made)
    player.stop.set()
    time_s = iter(range(0, 10_000, 20))
    with pytest.raises(CheckFailed, match=f"pod {made.name}-predictor-.* on no node"):
        removal.remove(
            cluster, run="run-1", timeout_s=60, say=lambda _: None, clock=lambda: next(time_s), sleep=lambda _: None
        )


def test_a_steps_own_pod_names_its_workflow(control_plane: ControlPlane, cluster: Cluster, namespace: str) -> None:
    owner = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "name": "nightly-x",
        "uid": "0-1-2",
        "controller": True,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "step", "ownerReferences": [owner]},
        "spec": {"containers": [{"name": "main", "image": "i"}]},
    }
    control_plane.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod)
    found = workflow_of(cluster, "step")
    assert found is not None
    assert found.reference() == {key: value for key, value in owner.items() if key != "controller"}
    assert workflow_of(cluster, "no-such-pod") is None


# Rights


def granted(cluster: Cluster, rules: tuple[permissions.Rule, ...], *, but: tuple[str, str] | None = None) -> None:
    """Wait until the server's own view of the rights has followed."""
    for rule in rules:
        for resource in rule.resources:
            for verb in rule.verbs:
                deadline = time.monotonic() + 30
                while cluster.allowed(verb, rule.group, resource) is (but == (resource, verb)):
                    assert time.monotonic() < deadline, (resource, verb)
                    time.sleep(0.02)


RUNNER = permissions.rules("pipeline-runner")


def without(resource: str, verb: str) -> list[Object]:
    """The runner's rules less one verb on one resource."""
    rules = []
    for rule in RUNNER:
        for name in rule.resources:
            verbs = [one for one in rule.verbs if (name, one) != (resource, verb)]
            rules.append({"group": rule.group, "resources": [name], "verbs": verbs})
    return rules


def everything(cluster: Cluster, namespace: str) -> None:
    """All that a pipeline's steps ask of the API server."""
    workflow_of(cluster, "no-such-pod")
    for profile in ("InferenceService", "LLMInferenceService"):
        made = service(namespace, run=f"rights-{profile.lower()}", profile=profile)
        put(cluster, made)
        assert len(conditions(cluster, run=made.run)) == 1
        removal.remove(cluster, run=made.run, say=lambda _: None, timeout_s=120)


def test_the_runners_rights_are_enough(control_plane: ControlPlane, namespace: str, player: Player) -> None:
    control_plane.grant(namespace, "pipeline-runner", [rule.model_dump() for rule in RUNNER])
    cluster = connect(control_plane, namespace, "pipeline-runner")
    granted(cluster, RUNNER)
    everything(cluster, namespace)


@pytest.mark.parametrize(
    ("resource", "verb"), [(resource, verb) for rule in RUNNER for resource in rule.resources for verb in rule.verbs]
)
def test_each_of_the_runners_rights_is_needed(
    control_plane: ControlPlane, namespace: str, player: Player, resource: str, verb: str
) -> None:
    control_plane.grant(namespace, "pipeline-runner", without(resource, verb))
    cluster = connect(control_plane, namespace, "pipeline-runner")
    granted(cluster, RUNNER, but=(resource, verb))
    with pytest.raises(Denied) as denied:
        everything(cluster, namespace)
    message = str(denied.value)
    assert "system:serviceaccount:m4rag:pipeline-runner" in message
    assert f"may not {verb} {resource}" in message
    assert f"in namespace {namespace}" in message


ACCOUNT_OPERATIONS: dict[str, Callable[[Cluster], object]] = {
    "reaper": lambda cluster: removal.reap(cluster, datetime.now(UTC)),
    "audit": conditions,
}


@pytest.mark.parametrize(
    ("account", "resource", "verb"),
    [
        (account, resource, verb)
        for account in ACCOUNT_OPERATIONS
        for rule in permissions.rules(account)
        for resource in rule.resources
        for verb in rule.verbs
    ],
)
def test_each_right_of_the_others_is_needed(
    control_plane: ControlPlane, cluster: Cluster, namespace: str, account: str, resource: str, verb: str
) -> None:
    rules = permissions.rules(account)
    # One of each kind that has expired, with a pod that is not ready.
    loading = cases()["the weights are loaded"]
    for number, kind in enumerate((INFERENCE_SERVICE, LLM_INFERENCE_SERVICE)):
        expired = {names.EXPIRES_AT: "2026-01-01T00:00:00Z"}
        made = Case(**{**vars(loading), "kind": kind.name, "annotations": expired})
        created(control_plane, namespace, made, f"expired-{number}")
    runtime = {
        "apiVersion": SERVING_RUNTIME.api_version,
        "kind": "ServingRuntime",
        "metadata": {
            "name": "expired-0",
            "labels": {names.MANAGED_BY: names.MANAGER},
        },
        "spec": {"containers": [{"name": "kserve-container", "image": "i"}]},
    }
    path = f"{SERVING_RUNTIME.root}/namespaces/{namespace}/{SERVING_RUNTIME.plural}"
    control_plane.request("POST", path, runtime)
    kept = [
        {
            "group": rule.group,
            "resources": [name],
            "verbs": [one for one in rule.verbs if (name, one) != (resource, verb)],
        }
        for rule in rules
        for name in rule.resources
    ]
    control_plane.grant(namespace, account, kept)
    theirs = connect(control_plane, namespace, account)
    granted(theirs, rules, but=(resource, verb))
    with pytest.raises(Denied, match=f"may not {verb} {resource}"):
        ACCOUNT_OPERATIONS[account](theirs)
    control_plane.grant(namespace, account, [rule.model_dump() for rule in rules])
    granted(theirs, rules)
    ACCOUNT_OPERATIONS[account](theirs)


def test_a_cluster_that_is_not_there_is_one_clear_line(tmp_path: Path, control_plane: ControlPlane) -> None:
    gone = json.loads(control_plane.kubeconfig("admin", "gone").read_text())
    gone["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(gone))
    with pytest.raises(Unavailable, match="no Kubernetes API server answers") as error:
        Cluster.connect(path).raw("/version")
    assert "https://127.0.0.1:9" in str(error.value)
    with pytest.raises(Unavailable, match="no cluster is configured"):
        Cluster.connect(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="context"):
        Cluster.connect(path, context="other")
