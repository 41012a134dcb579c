"""Look whether a cluster has what a deployment needs, before one is tried. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from m4rag.deploy.catalog import Hardware, Toleration
from m4rag.deploy.cluster import POD, Cluster, Kind
from m4rag.deploy.deployment import fields
from m4rag.deploy.diagnosis import GONE_PHASES
from m4rag.deploy.permissions import Rule
from m4rag.deploy.pods import conditions, name_of
from m4rag.deploy.refusals import Denied
from m4rag.deploy.vlm_service import Profile

Object = dict[str, Any]
State = Literal["ok", "missing", "unknown"]

NODE = Kind("v1", "Node", "nodes")
QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
SECRET = Kind("v1", "Secret", "secrets")
STORAGE_CLASS = Kind("storage.k8s.io/v1", "StorageClass", "storageclasses")
GATEWAY = Kind("gateway.networking.k8s.io/v1", "Gateway", "gateways")

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
NOT_TOLD = "Ask somebody who may list them, or run this with their kubeconfig."


@dataclass(frozen=True)
class Row:
    """One thing looked at.

    Attributes:
        check: What was looked at.
        state: `ok`, `missing`, or `unknown` where the account may not look.
        detail: What was found.
        remedy: What to do, "" where all is well.
    """

    check: str
    state: State
    detail: str
    remedy: str = ""


def preflight(
    cluster: Cluster,
    *,
    hardware: Hardware,
    rules: Sequence[Rule],
    profile: Profile = "InferenceService",
    storage_class: str | None = None,
    secrets: Sequence[str] = (),
) -> list[Row]:
    """Look at all that a deployment needs.

    Args:
        cluster: Where, and in which namespace.
        hardware: What a replica needs.
        rules: What the account must be allowed.
        profile: What it is to be deployed as.
        storage_class: The class that claims name; None for the cluster's default.
        secrets: Secrets that must be in the namespace.

    Raises:
        Unavailable: The server is gone, or does not accept the credentials.
    """
    return [
        _server(cluster),
        *_crds(cluster, profile),
        *(_rule(cluster, rule, resource) for rule in rules for resource in rule.resources),
        _nodes(cluster, hardware),
        _quota(cluster, hardware),
        _storage(cluster, storage_class),
        _gateway(cluster, profile),
        *(_secret(cluster, name) for name in secrets),
    ]


def _server(cluster: Cluster) -> Row:
    version = cluster.raw("/version")
    return Row("API server", "ok", f"Kubernetes {version['gitVersion']} at {cluster.url}")


def _crds(cluster: Cluster, profile: Profile) -> Iterable[Row]:
    found = fields(cluster, profile)
    if profile == "InferenceService":
        if found.inference_service:
            yield Row("KServe", "ok", "InferenceService v1beta1, ServingRuntime v1alpha1")
        else:
            yield Row("KServe", "missing", "no InferenceService v1beta1", "Install KServe 0.20 or newer.")
    elif found.llm_version is None:
        yield Row("KServe", "missing", "no LLMInferenceService", "Install KServe's llmisvc charts.")
    else:
        new = found.llm_rollout_strategy and found.llm_scaling_keda
        detail = f"LLMInferenceService {found.llm_version}, fields of KServe {'0.21' if new else '0.20'}"
        yield Row("KServe", "ok", detail)


def _rule(cluster: Cluster, rule: Rule, resource: str) -> Row:
    name = f"{resource}.{rule.group}" if rule.group else resource
    missing = [verb for verb in rule.verbs if not cluster.allowed(verb, rule.group, resource)]
    if not missing:
        return Row(f"permission: {name}", "ok", ", ".join(rule.verbs))
    remedy = f"Let a Role in {cluster.namespace} allow {', '.join(missing)} on {name}; the chart's Roles do."
    return Row(f"permission: {name}", "missing", f"may not {', '.join(missing)} ({rule.why})", remedy)


def _nodes(cluster: Cluster, hardware: Hardware) -> Row:
    """Whether some node that the profile's pods may use has enough free GPUs (or any node, for a profile without)."""
    check = f"nodes for {hardware.name}"
    try:
        nodes = cluster.list(NODE, clusterwide=True).items
        pods = cluster.list(POD, everywhere=True).items if hardware.gpus else ()
    except Denied:
        return Row(check, "unknown", "the account may not list nodes and pods of all namespaces", NOT_TOLD)
    usable = [node for node in nodes if suits(node, hardware)]
    if not usable:
        selector = ", ".join(f"{key}={value}" for key, value in hardware.node_selector.items()) or "any"
        return Row(
            check,
            "missing",
            f"none of {len(nodes)} nodes is ready, has the labels {selector}, and only taints that are tolerated",
            "Add such a pool, or a profile with your pool's labels and taints. A pool that grows from zero shows none.",
        )
    if not hardware.gpus:
        return Row(check, "ok", f"{len(usable)} of {len(nodes)} nodes")
    free = {name_of(node): free_of(node, pods, hardware.gpu_resource) for node in usable}
    best, total = max(free.values()), sum(free.values())
    detail = (
        f"{total} {hardware.gpu_resource} free on {len(usable)} nodes, {best} on one; a replica needs {hardware.gpus}"
    )
    if best >= hardware.gpus:
        return Row(check, "ok", detail)
    return Row(check, "missing", detail, "Free GPUs (`m4rag deploy status`, `remove`), or let the pool grow.")


def suits(node: Object, hardware: Hardware) -> bool:
    """Whether a pod of this profile may stand on the node: ready, not cordoned, labels, taints."""
    labels = node["metadata"].get("labels") or {}
    spec = node.get("spec") or {}
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions(node))
    selected = all(labels.get(key) == value for key, value in hardware.node_selector.items())
    return ready and selected and not spec.get("unschedulable") and _tolerated(spec.get("taints") or (), hardware)


def _tolerated(taints: Iterable[Object], hardware: Hardware) -> bool:
    return all(
        taint["effect"] == "PreferNoSchedule" or any(_tolerates(one, taint) for one in hardware.tolerations)
        for taint in taints
    )


def _tolerates(toleration: Toleration, taint: Object) -> bool:
    value = toleration.operator == "Exists" or (toleration.value or "") == taint.get("value", "")
    return toleration.key == taint["key"] and value and toleration.effect in {None, taint["effect"]}


def free_of(node: Object, pods: Iterable[Object], resource: str) -> int:
    """How many of a resource a node can still give: what it has less what its pods were promised."""
    has = int(((node.get("status") or {}).get("allocatable") or {}).get(resource, 0))
    promised = 0
    for pod in pods:
        spec = pod.get("spec") or {}
        if spec.get("nodeName") != name_of(node) or (pod.get("status") or {}).get("phase") in GONE_PHASES:
            continue
        promised += max(_asked(spec.get("containers") or (), resource, sum), _asked(_init(spec), resource, _largest))
    return has - promised


def _init(spec: Object) -> Sequence[Object]:
    return spec.get("initContainers") or ()


def _largest(numbers: Iterable[int]) -> int:
    return max(numbers, default=0)


def _asked(containers: Iterable[Object], resource: str, together: Any) -> int:
    """What containers ask for: added up where they run together, the largest where they run one by one."""
    asked = (((one.get("resources") or {}).get("requests") or {}).get(resource, 0) for one in containers)
    return int(together(int(number) for number in asked))


def _quota(cluster: Cluster, hardware: Hardware) -> Row:
    try:
        quotas = cluster.list(QUOTA).items
    except Denied:
        return Row("quota", "unknown", f"the account may not list resourcequotas in {cluster.namespace}", NOT_TOLD)
    short = [line for quota in quotas for line in _short(quota, hardware)]
    if short:
        return Row("quota", "missing", "; ".join(short), "Remove other services, or have the quota raised.")
    return Row("quota", "ok", f"{len(quotas)} quotas leave room for a replica" if quotas else "none")


def _short(quota: Object, hardware: Hardware) -> Iterable[str]:
    """The resources of a quota that have no room for one replica."""
    needed = {
        f"requests.{hardware.gpu_resource}": str(hardware.gpus),
        "pods": "1",
        **{f"requests.{name}": amount for name, amount in hardware.requests.model_dump().items()},
        **{f"limits.{name}": amount for name, amount in hardware.limits.model_dump().items()},
        **hardware.requests.model_dump(),
    }
    status = quota.get("status") or {}
    hard, used = status.get("hard") or (quota.get("spec") or {}).get("hard") or {}, status.get("used") or {}
    for resource, need in needed.items():
        if resource not in hard:
            continue
        left = quantity(hard[resource]) - quantity(used.get(resource, "0"))
        if left < quantity(need):
            yield f"{name_of(quota)}: {resource} has {used.get(resource, '0')} of {hard[resource]} used, {need} needed"


UNITS: dict[str, Decimal] = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{letter: Decimal(1000**power) for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Decimal(1024**power) for power, letter in enumerate("KMGTPE", 1)},
}


def quantity(text: str) -> Decimal:
    """A Kubernetes quantity (`500m`, `64Gi`, `8`) as a number.

    Raises:
        ValueError: It is none.
    """
    number = text.rstrip("mkKMGTPEi")
    try:
        return Decimal(number) * UNITS[text[len(number) :]]
    except (InvalidOperation, KeyError):
        raise ValueError(f"{text!r} is not a quantity") from None


def _storage(cluster: Cluster, wanted: str | None) -> Row:
    try:
        classes = cluster.list(STORAGE_CLASS, clusterwide=True).items
    except Denied:
        return Row("storage class", "unknown", "the account may not list storageclasses", NOT_TOLD)
    names = [name_of(one) for one in classes]
    default = [
        name_of(one) for one in classes if (one["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    ]
    if wanted is not None:
        if wanted in names:
            return Row("storage class", "ok", wanted)
        remedy = f"Choose of {', '.join(names)}." if names else "Install one."
        return Row("storage class", "missing", f"no {wanted}", remedy)
    if default:
        return Row("storage class", "ok", f"{default[0]} (default)")
    return Row("storage class", "missing", f"no default among {len(names)}", "Mark one as default, or name one.")


def _gateway(cluster: Cluster, profile: Profile) -> Row:
    if cluster.served(GATEWAY.api_version) is None:
        if profile == "InferenceService":
            return Row("gateway", "missing", "no Gateway API", "Install the Gateway API and a controller for it.")
        return Row("gateway", "missing", "no Gateway API", "Install it with a controller and the inference extension.")
    try:
        gateways = cluster.list(GATEWAY, everywhere=True).items
    except Denied:
        return Row("gateway", "unknown", "the account may not list gateways of all namespaces", NOT_TOLD)
    ready = [one for one in gateways if _programmed(one)]
    if not ready:
        return Row("gateway", "missing", f"none of {len(gateways)} is programmed", "Make a Gateway; see its status.")
    names = ", ".join(f"{one['metadata']['namespace']}/{name_of(one)}" for one in ready)
    return Row("gateway", "ok", names)


def _programmed(gateway: Object) -> bool:
    return any(one["type"] == "Programmed" and one["status"] == "True" for one in conditions(gateway))


def _secret(cluster: Cluster, name: str) -> Row:
    try:
        found = cluster.get(SECRET, name)
    except Denied:
        return Row(f"secret {name}", "unknown", "the account may not read it", NOT_TOLD)
    if found is None:
        remedy = f"kubectl create secret generic {name} -n {cluster.namespace} --from-env-file=FILE"
        return Row(f"secret {name}", "missing", f"not in {cluster.namespace}", remedy)
    return Row(f"secret {name}", "ok", f"{len(found.get('data') or {})} keys")
