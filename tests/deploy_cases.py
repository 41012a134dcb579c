"""How services go wrong, as the objects that a cluster would hold: the unit tests look at them as they are, the
integration tests create them on a real API server and read what `m4rag deploy status` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from m4rag.deploy.causes import Category, Level
from m4rag.deploy.names import MANAGED_BY, MANAGER, MODEL, RUN, SPEC

Object = dict[str, Any]

HASH, OLD_HASH = "0123456789ab", "ba9876543210"
IMAGE = "registry.example/vllm@sha256:" + "0" * 64


def ago(seconds: float) -> str:
    """A time so long ago, as the API server writes it."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def service(name: str, kind: str = "InferenceService") -> Object:
    """A service of m4rag's with one replica."""
    metadata = {
        "name": name,
        "labels": {MANAGED_BY: MANAGER, MODEL: "qwen", RUN: "run-1"},
        "annotations": {SPEC: HASH},
    }
    if kind == "InferenceService":
        model = {"modelFormat": {"name": "vLLM"}, "storageUri": "hf://owner/model"}
        spec: Object = {"predictor": {"minReplicas": 1, "annotations": {SPEC: HASH}, "model": model}}
        return {"apiVersion": "serving.kserve.io/v1beta1", "kind": kind, "metadata": metadata, "spec": spec}
    spec = {"model": {"uri": "hf://owner/model"}, "replicas": 1, "annotations": {SPEC: HASH}}
    return {"apiVersion": "serving.kserve.io/v1alpha2", "kind": kind, "metadata": metadata, "spec": spec}


def pod(
    name: str, status: Object, *, service: str = "x", spec_hash: str = HASH, kind: str = "InferenceService"
) -> Object:
    """A pod as KServe and the kubelet leave it."""
    labels = {"serving.kserve.io/inferenceservice": service}
    if kind != "InferenceService":
        labels = {
            "app.kubernetes.io/name": service,
            "app.kubernetes.io/part-of": "llminferenceservice",
            "kserve.io/component": "workload",
        }
    limits = {"memory": "128Gi"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "annotations": {SPEC: spec_hash}},
        "spec": {
            "initContainers": [
                {"name": "storage-initializer", "image": IMAGE, "resources": {"limits": {"memory": "1Gi"}}},
                {"name": "prepare", "image": IMAGE},
            ],
            "containers": [{"name": "kserve-container", "image": IMAGE, "resources": {"limits": limits}}],
        },
        "status": status,
    }


def condition(kind: str, status: str, *, reason: str = "", message: str = "", since_s: float = 0) -> Object:
    """A condition."""
    told = {"reason": reason, "message": message}
    return {"type": kind, "status": status, "lastTransitionTime": ago(since_s), **{k: v for k, v in told.items() if v}}


def waiting(reason: str, message: str = "", **more: Any) -> Object:
    """A container that waits."""
    return {"state": {"waiting": {"reason": reason, "message": message}}, "ready": False, "restartCount": 0, **more}


def running(since_s: float = 0, **more: Any) -> Object:
    """A container that runs and is not ready."""
    return {"state": {"running": {"startedAt": ago(since_s)}}, "ready": False, "restartCount": 0, **more}


def ended(code: int, reason: str = "Error", message: str = "") -> Object:
    """The state of a container that ended."""
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": ago(5)}}


def container(status: Object, name: str = "kserve-container") -> Object:
    """A container's status, with the fields that the API demands."""
    return {"name": name, "image": IMAGE, "imageID": IMAGE, **status}


def scheduled(*conditions: Object) -> list[Object]:
    return [condition("PodScheduled", "True"), *conditions]


def main(status: Object) -> Object:
    """The status of a pod whose model container is like this."""
    done = {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}, "ready": True, "restartCount": 0}
    init = [container(done, "storage-initializer"), container(done, "prepare")]
    return {
        "phase": "Pending" if "waiting" in status["state"] else "Running",
        "conditions": scheduled(condition("Ready", "False")),
        "initContainerStatuses": init,
        "containerStatuses": [container(status)],
    }


def storage(status: Object) -> Object:
    """The status of a pod whose storage initializer is like this."""
    turn = waiting("PodInitializing")
    return {
        "phase": "Pending",
        "conditions": scheduled(condition("Ready", "False")),
        "initContainerStatuses": [container(status, "storage-initializer"), container(turn, "prepare")],
        "containerStatuses": [container(turn)],
    }


def unscheduled(message: str, reason: str = "Unschedulable") -> Object:
    return {
        "phase": "Pending",
        "conditions": [condition("PodScheduled", "False", reason=reason, message=message, since_s=240)],
    }


READY = {
    "phase": "Running",
    "conditions": [condition("PodScheduled", "True"), condition("Ready", "True")],
    "containerStatuses": [container({"state": {"running": {"startedAt": ago(60)}}, "ready": True, "restartCount": 0})],
}


def crashed(restarts: int, code: int, reason: str = "Error", message: str = "") -> Object:
    back_off = waiting("CrashLoopBackOff", "back-off 40s restarting failed container", restartCount=restarts)
    return {**back_off, "lastState": ended(code, reason, message)}


def model_status(
    transition: str, reason: str, message: str, *, since_s: float | None, code: int | None = None
) -> Object:
    failure: Object = {"reason": reason, "message": message}
    failure |= {} if since_s is None else {"time": ago(since_s)}
    failure |= {} if code is None else {"exitCode": code}
    return {"transitionStatus": transition, "lastFailureInfo": failure}


@dataclass(frozen=True)
class Case:
    """What a cluster holds, and what is to be said of it.

    Attributes:
        id: Name of the test.
        category: What it is.
        level: How bad.
        says: What the summary holds.
        statuses: Statuses of the pods; their names end in their number.
        events: Reason, message, and the kind and end of the name of what it is about.
        status: The service's status.
        kind: The service's kind.
        hashes: Of the pods, for those that are of an older spec.
        annotations: More of the service's annotations.
    """

    id: str
    category: Category
    level: Level
    says: tuple[str, ...]
    statuses: Sequence[Object] = ()
    events: Sequence[tuple[str, str, str, str]] = ()
    status: Object = field(default_factory=dict)
    kind: str = "InferenceService"
    hashes: Sequence[str] = ()
    annotations: Object = field(default_factory=dict)


def objects(case: Case, name: str) -> tuple[Object, list[Object], list[Object]]:
    """The service, its pods and its events."""
    made = service(name, case.kind)
    made["metadata"]["annotations"] |= case.annotations
    if case.status:
        made["status"] = case.status
    workload = f"{name}-{'predictor' if case.kind == 'InferenceService' else 'kserve'}"
    hashes = case.hashes or [HASH] * len(case.statuses)
    pods = [
        pod(f"{workload}-{number}", status, service=name, spec_hash=spec_hash, kind=case.kind)
        for number, (status, spec_hash) in enumerate(zip(case.statuses, hashes, strict=True))
    ]
    events = [
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{workload}-event-{number}"},
            "involvedObject": {"kind": kind, "name": f"{workload}-{end}"},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "firstTimestamp": ago(300),
            "lastTimestamp": ago(-2 + (len(case.events) - number)),
        }
        for number, (reason, message, kind, end) in enumerate(case.events)
    ]
    return made, pods, events


TRACE = "INFO loading\nTraceback (most recent call last):\nValueError: No available memory for the cache blocks.\n"
IS_READY = {"conditions": [condition("Ready", "True")]}


def cases() -> dict[str, Case]:
    """All cases by their id, with times that count from now."""
    made = (
        Case(
            "no GPU is free",
            Category.UNSCHEDULABLE_RESOURCE,
            Level.STUCK,
            ("not scheduled for 4 min", "nvidia.com/gpu (on 2 nodes)", "taint {dedicated: training}", "of 5 nodes"),
            [
                unscheduled(
                    "0/5 nodes are available: 2 Insufficient nvidia.com/gpu, 3 node(s) had untolerated taint "
                    "{dedicated: training}. preemption: 0/5 nodes are available: 2 No preemption victims found for pod."
                )
            ],
        ),
        Case(
            "every node is tainted",
            Category.UNSCHEDULABLE_NODE,
            Level.STUCK,
            ("kept from every node by taint {nvidia.com/gpu: present}", "of 3 nodes"),
            [unscheduled("0/3 nodes are available: 3 node(s) had untolerated taint {nvidia.com/gpu: present}.")],
        ),
        Case(
            "no node has the labels, in the words of an older scheduler",
            Category.UNSCHEDULABLE_NODE,
            Level.STUCK,
            ("its node selector", "taint {node-role.kubernetes.io/master: }"),
            [
                unscheduled(
                    "0/4 nodes are available: 1 node(s) had taint {node-role.kubernetes.io/master: }, that the pod "
                    "didn't tolerate, 3 node(s) didn't match Pod's node affinity/selector."
                )
            ],
        ),
        Case(
            "the claim is not bound",
            Category.UNSCHEDULABLE_VOLUME,
            Level.STUCK,
            ("its volume is not bound",),
            [unscheduled("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.")],
        ),
        Case(
            "the pod waits in a queue",
            Category.QUEUED,
            Level.PROGRESSING,
            ("waits in a queue for 4 min",),
            [unscheduled("Scheduling is blocked due to non-empty scheduling gates", "SchedulingGated")],
        ),
        Case(
            "the image is pulled",
            Category.IMAGE_PULLING,
            Level.PROGRESSING,
            (f"pulls {IMAGE}",),
            [main(waiting("ContainerCreating"))],
            [("Pulling", f'Pulling image "{IMAGE}"', "Pod", "0")],
        ),
        Case(
            "the image is not there",
            Category.IMAGE_PULL_FAILED,
            Level.STUCK,
            (f"{IMAGE} is not pulled",),
            [main(waiting("ImagePullBackOff", f'Back-off pulling image "{IMAGE}": not found'))],
        ),
        Case(
            "the image's name is none",
            Category.INVALID_IMAGE,
            Level.FAILED,
            ("is no image to run",),
            [main(waiting("InvalidImageName", "couldn't parse image reference"))],
        ),
        Case(
            "a secret is missing",
            Category.CONTAINER_CONFIG,
            Level.STUCK,
            ('secret "hf-token" not found',),
            [main(waiting("CreateContainerConfigError", 'secret "hf-token" not found'))],
        ),
        Case(
            "a volume is not mounted",
            Category.MOUNT_FAILED,
            Level.STUCK,
            ("waits for a volume", 'configmap "tables" not found'),
            [main(waiting("ContainerCreating"))],
            [("FailedMount", 'MountVolume.SetUp failed for volume "t": configmap "tables" not found', "Pod", "0")],
        ),
        Case(
            "the model is downloaded",
            Category.STORAGE_DOWNLOADING,
            Level.PROGRESSING,
            ("downloads the model for 5 min",),
            [storage(running(320))],
        ),
        Case(
            "the download hangs",
            Category.STORAGE_HANGS,
            Level.STUCK,
            ("downloading the model for 40 min without an end",),
            [storage(running(2400))],
        ),
        Case(
            "the storage initializer runs out of memory",
            Category.STORAGE_OUT_OF_MEMORY,
            Level.FAILED,
            ("storage-initializer was killed", "limit of 1Gi"),
            [storage(crashed(1, 137, "OOMKilled"))],
        ),
        Case(
            "the storage initializer fails for good",
            Category.STORAGE_FAILED,
            Level.FAILED,
            ("storage-initializer fails (exit code 1, 3 restarts)", "RepositoryNotFoundError"),
            [storage(crashed(3, 1, message="requests.RepositoryNotFoundError: 404 Client Error: no such model\n"))],
        ),
        Case(
            "the weights are loaded",
            Category.LOADING,
            Level.PROGRESSING,
            ("loads the model for 7 min",),
            [main(running(430, started=False))],
        ),
        Case(
            "the weights are loaded, past KServe's ten minutes",
            Category.LOADING,
            Level.PROGRESSING,
            ("loads the model for 12 min",),
            [main(running(750, started=False))],
            status={"conditions": [condition("PredictorReady", "False", reason="ProgressDeadlineExceeded")]},
        ),
        Case(
            "the probe fails after the start",
            Category.PROBE_FAILING,
            Level.STUCK,
            ("fails its probe", "HTTP probe failed with statuscode: 503"),
            [main(running(430, started=True))],
            [("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", "Pod", "0")],
        ),
        Case(
            "it crashed once",
            Category.CRASH_LOOP,
            Level.STUCK,
            ("crashes (exit code 1, 1 restarts)",),
            [main({**running(3), "restartCount": 1, "lastState": ended(1)})],
        ),
        Case(
            "it crashes again and again",
            Category.CRASH_LOOP,
            Level.FAILED,
            ("crashes (exit code 1, 4 restarts)", "ValueError: No available memory for the cache blocks."),
            [main(crashed(4, 1, message=TRACE))],
        ),
        Case(
            "it runs out of memory",
            Category.OUT_OF_MEMORY,
            Level.FAILED,
            ("kserve-container was killed", "limit of 128Gi"),
            [main(crashed(1, 137, "OOMKilled"))],
        ),
        Case(
            "it was evicted",
            Category.EVICTED,
            Level.STUCK,
            ("was evicted",),
            [{"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}],
        ),
        Case(
            "it was evicted, and its successor loads",
            Category.LOADING,
            Level.PROGRESSING,
            ("loads the model",),
            [
                {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
                main(running(10, started=False)),
            ],
        ),
        Case(
            "the quota is used up",
            Category.QUOTA_EXCEEDED,
            Level.STUCK,
            ("a quota is used up",),
            events=[
                (
                    "FailedCreate",
                    'pods "x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: 8',
                    "ReplicaSet",
                    "5f7d",
                )
            ],
        ),
        Case(
            "a policy refuses the pod",
            Category.POD_REFUSED,
            Level.STUCK,
            ("it is refused",),
            events=[("FailedCreate", 'pods "x" is forbidden: violates PodSecurity "restricted"', "ReplicaSet", "5f7d")],
        ),
        Case(
            "the model does not load",
            Category.MODEL_LOAD_FAILED,
            Level.FAILED,
            ("ModelLoadFailed (exit code 1)", "unsupported architecture"),
            status={
                "modelStatus": model_status(
                    "BlockedByFailedLoad", "ModelLoadFailed", "unsupported architecture", since_s=-5, code=1
                )
            },
        ),
        Case(
            "the spec is invalid",
            Category.INVALID_SPEC,
            Level.FAILED,
            ("NoSupportingRuntime", "no runtime"),
            status={"modelStatus": model_status("InvalidSpec", "NoSupportingRuntime", "no runtime", since_s=-5)},
        ),
        Case(
            "the spec before was invalid",
            Category.INVALID_SPEC,
            Level.STUCK,
            ("NoSupportingRuntime",),
            status={"modelStatus": model_status("InvalidSpec", "NoSupportingRuntime", "no runtime", since_s=900)},
        ),
        Case(
            "the spec before did not load, this one does",
            Category.LOADING,
            Level.PROGRESSING,
            ("loads the model",),
            [main(running(10, started=False))],
            status={"modelStatus": model_status("BlockedByFailedLoad", "ModelLoadFailed", "no", since_s=900)},
        ),
        Case(
            "the presets cannot be combined",
            Category.INVALID_SPEC,
            Level.FAILED,
            ("CombineBaseError", "no such base"),
            status={
                "conditions": [
                    condition("PresetsCombined", "False", reason="CombineBaseError", message="no such base", since_s=-5)
                ]
            },
            kind="LLMInferenceService",
        ),
        Case(
            "the controller has said nothing yet",
            Category.WAITING_FOR_CONTROLLER,
            Level.PROGRESSING,
            ("has no pod of its present spec",),
        ),
        Case(
            "old pods are ready, new ones are not there",
            Category.WAITING_FOR_CONTROLLER,
            Level.PROGRESSING,
            ("has no pod of its present spec",),
            [READY],
            status=IS_READY,
            hashes=[OLD_HASH],
        ),
        Case(
            "old pods serve beside the new ones",
            Category.ROLLING_OUT,
            Level.PROGRESSING,
            ("still has pods of its last spec",),
            [READY, READY],
            status=IS_READY,
            hashes=[HASH, OLD_HASH],
        ),
        Case(
            "the pods are ready and the route is not",
            Category.ROUTE_NOT_READY,
            Level.STUCK,
            ("has pods but no route",),
            [READY],
            status={
                "conditions": [
                    condition("IngressReady", "False", reason="Gateway", message="no gateway"),
                    condition("Ready", "False"),
                ]
            },
        ),
        Case(
            "an LLMInferenceService without a router",
            Category.ROUTE_NOT_READY,
            Level.STUCK,
            ("has pods but no route",),
            [READY],
            status={
                "conditions": [
                    condition("RouterReady", "False", reason="GatewaysNotReady", message="gateway g is not programmed"),
                    condition("Ready", "False"),
                ]
            },
            kind="LLMInferenceService",
        ),
        Case(
            "it is stopped",
            Category.STOPPED,
            Level.FAILED,
            ("is stopped and holds no GPU",),
            annotations={"serving.kserve.io/stop": "true"},
        ),
        Case("it is ready", Category.READY, Level.READY, ("is ready: 1 pods",), [READY], status=IS_READY),
        Case(
            "an LLMInferenceService is ready",
            Category.READY,
            Level.READY,
            ("is ready: 1 pods",),
            [READY],
            status=IS_READY,
            kind="LLMInferenceService",
        ),
    )
    return {case.id: case for case in made}
