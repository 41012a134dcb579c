"""The states that a served model can be in, and what to do about each. The names are a contract: scripts match them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How far a state is from serving.

    `stuck` may still resolve by itself (a pool grows, a registry comes back), within a patience; `failed` will not.
    """

    READY = "ready"
    PROGRESSING = "progressing"
    STUCK = "stuck"
    FAILED = "failed"


class Phase(StrEnum):
    """The stretch of a start that a state belongs to; each has a time budget of its own."""

    ACCEPTANCE = "acceptance"
    SCHEDULING = "scheduling"
    IMAGE = "image"
    STORAGE = "storage"
    LOADING = "loading"
    ROUTING = "routing"


class Category(StrEnum):
    """What is going on."""

    READY = "ready"
    STOPPED = "stopped"
    DELETING = "deleting"
    WAITING_FOR_CONTROLLER = "waiting-for-controller"
    INVALID_SPEC = "invalid-spec"
    QUOTA_EXCEEDED = "quota-exceeded"
    POD_REFUSED = "pod-refused"
    QUEUED = "queued"
    UNSCHEDULABLE_RESOURCE = "unschedulable-resource"
    UNSCHEDULABLE_NODE = "unschedulable-node"
    UNSCHEDULABLE_VOLUME = "unschedulable-volume"
    PROGRESSING = "progressing"
    IMAGE_PULLING = "image-pulling"
    IMAGE_PULL_FAILED = "image-pull-failed"
    INVALID_IMAGE = "invalid-image"
    CONTAINER_CONFIG = "container-config"
    MOUNT_FAILED = "mount-failed"
    STORAGE_DOWNLOADING = "storage-downloading"
    STORAGE_HANGS = "storage-hangs"
    STORAGE_OUT_OF_MEMORY = "storage-out-of-memory"
    STORAGE_FAILED = "storage-failed"
    LOADING = "loading"
    PROBE_FAILING = "probe-failing"
    OUT_OF_MEMORY = "out-of-memory"
    CRASH_LOOP = "crash-loop"
    EVICTED = "evicted"
    MODEL_LOAD_FAILED = "model-load-failed"
    ROLLING_OUT = "rolling-out"
    ROUTE_NOT_READY = "route-not-ready"


@dataclass(frozen=True)
class Diagnosis:
    """What a service's objects say about it.

    Attributes:
        level: How far it is from serving.
        category: What is going on.
        summary: One line: which object, what, since when.
        detail: The cluster's own words, log lines included; "" where the summary says all.
        resolution: What to do about it; "" where there is nothing to do but wait.
    """

    level: Level
    category: Category
    summary: str
    detail: str = ""
    resolution: str = ""

    @property
    def phase(self) -> Phase:
        """The stretch of a start that this belongs to."""
        return PHASES[self.category]


PHASES = {
    Category.READY: Phase.ROUTING,
    Category.STOPPED: Phase.ACCEPTANCE,
    Category.DELETING: Phase.ACCEPTANCE,
    Category.WAITING_FOR_CONTROLLER: Phase.ACCEPTANCE,
    Category.INVALID_SPEC: Phase.ACCEPTANCE,
    Category.QUOTA_EXCEEDED: Phase.SCHEDULING,
    Category.POD_REFUSED: Phase.ACCEPTANCE,
    Category.QUEUED: Phase.SCHEDULING,
    Category.UNSCHEDULABLE_RESOURCE: Phase.SCHEDULING,
    Category.UNSCHEDULABLE_NODE: Phase.SCHEDULING,
    Category.UNSCHEDULABLE_VOLUME: Phase.SCHEDULING,
    Category.PROGRESSING: Phase.IMAGE,
    Category.IMAGE_PULLING: Phase.IMAGE,
    Category.IMAGE_PULL_FAILED: Phase.IMAGE,
    Category.INVALID_IMAGE: Phase.IMAGE,
    Category.CONTAINER_CONFIG: Phase.IMAGE,
    Category.MOUNT_FAILED: Phase.IMAGE,
    Category.STORAGE_DOWNLOADING: Phase.STORAGE,
    Category.STORAGE_HANGS: Phase.STORAGE,
    Category.STORAGE_OUT_OF_MEMORY: Phase.STORAGE,
    Category.STORAGE_FAILED: Phase.STORAGE,
    Category.LOADING: Phase.LOADING,
    Category.PROBE_FAILING: Phase.LOADING,
    Category.OUT_OF_MEMORY: Phase.LOADING,
    Category.CRASH_LOOP: Phase.LOADING,
    Category.EVICTED: Phase.SCHEDULING,
    Category.MODEL_LOAD_FAILED: Phase.LOADING,
    Category.ROLLING_OUT: Phase.ROUTING,
    Category.ROUTE_NOT_READY: Phase.ROUTING,
}

RESOLUTIONS = {
    Category.STOPPED: "Remove the annotation serving.kserve.io/stop, or deploy again, to start it.",
    Category.DELETING: "Wait until it is gone, then deploy again.",
    Category.WAITING_FOR_CONTROLLER: "See whether KServe's controller runs: `kubectl get pods -n kserve`.",
    Category.INVALID_SPEC: "Correct what the message names and deploy again.",
    Category.QUOTA_EXCEEDED: "Remove what is no longer needed in the namespace, or have its ResourceQuota raised.",
    Category.POD_REFUSED: "Deploy with what the namespace's policy allows, or have the policy changed.",
    Category.UNSCHEDULABLE_RESOURCE: "Free it (remove other services), let the pool grow, or choose smaller hardware.",
    Category.UNSCHEDULABLE_NODE: "Choose a hardware profile whose node selector and tolerations fit a node pool.",
    Category.UNSCHEDULABLE_VOLUME: "See `kubectl get pvc`: the claim needs a storage class that binds in this zone.",
    Category.IMAGE_PULL_FAILED: "Check the image's name and digest, and that it may be pulled (imagePullSecrets).",
    Category.INVALID_IMAGE: "Correct the image's name: registry/name@sha256:<64 hex digits>.",
    Category.CONTAINER_CONFIG: "Make the Secret or ConfigMap that the message names in this namespace.",
    Category.MOUNT_FAILED: "Make the volume that the message names, or free it on the node that holds it.",
    Category.STORAGE_HANGS: "Download from a mirror or a volume near the cluster; delete the pod to try again.",
    Category.STORAGE_OUT_OF_MEMORY: (
        "Raise the memory limit in KServe's ClusterStorageContainer (8-16Gi), or set HF_HUB_DISABLE_XET=1 there."
    ),
    Category.STORAGE_FAILED: "Check the model's address and revision, and the credentials and network to reach it.",
    Category.PROBE_FAILING: "Read the container's log: it runs, but does not answer its probe.",
    Category.OUT_OF_MEMORY: "Give it more memory (hardware profile), or lower max-model-len or the images' cache.",
    Category.CRASH_LOOP: "Correct what the last lines of its log name, and deploy again.",
    Category.EVICTED: "Free the node's memory or disk, or raise the requests of the hardware profile.",
    Category.MODEL_LOAD_FAILED: "Correct what the message names: the runtime, the model's address, or the GPUs.",
    Category.ROUTE_NOT_READY: "Check the gateway: `kubectl get gateway,httproute`; `m4rag deploy preflight`.",
}


def diagnosis(level: Level, category: Category, summary: str, detail: str = "") -> Diagnosis:
    """A diagnosis with its category's remedy; of what merely progresses there is none."""
    remedy = RESOLUTIONS.get(category, "") if level in {Level.STUCK, Level.FAILED} else ""
    return Diagnosis(level, category, summary, detail, remedy)
