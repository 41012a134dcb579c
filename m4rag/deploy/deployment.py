"""Deploy one service from manifests to proof, and say how the deployed ones are. Every step may be repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import SecretStr

from m4rag.deploy import names
from m4rag.deploy.causes import Diagnosis
from m4rag.deploy.cluster import (
    INFERENCE_SERVICE,
    LLM_INFERENCE_SERVICE,
    POD,
    SERVICES,
    SERVING_RUNTIME,
    Cluster,
    kind_of,
)
from m4rag.deploy.crd import GROUP, LLM_VERSIONS, CRDFields, of_openapi
from m4rag.deploy.diagnosis import diagnose, spec_hash
from m4rag.deploy.observation import explained, observed, pods_of
from m4rag.deploy.pods import name_of
from m4rag.deploy.proof import Proof, prove
from m4rag.deploy.vlm_service import Owner, Profile, VLMService, render
from m4rag.deploy.waiting import wait_ready
from m4rag.errors import CheckFailed, Unavailable, UsageError

Object = dict[str, Any]
Outcome = Literal["created", "changed", "unchanged"]

WAIT_S = 3600.0
DESCRIBED_IN_S = 120.0


@dataclass(frozen=True)
class Deployed:
    """A service that serves.

    Attributes:
        kind: `InferenceService` or `LLMInferenceService`.
        name: Its name.
        namespace: Its namespace.
        outcome: What applying it did: `created`, `changed` or `unchanged`.
        url: Base address of its OpenAI API, ending in `/v1`.
        spec: Hash of its spec.
        images: Images that its pods run, as the nodes resolved them.
        seconds: Seconds of waiting by phase.
        proof: What it did when it was asked.
    """

    kind: str
    name: str
    namespace: str
    outcome: Outcome
    url: str
    spec: str | None
    images: tuple[str, ...]
    seconds: Mapping[str, float]
    proof: Proof


@dataclass(frozen=True)
class Condition:
    """How a deployed service is."""

    kind: str
    name: str
    model: str | None
    run: str | None
    expires_at: str | None
    pods: int
    url: str | None
    diagnosis: Diagnosis


def deploy(
    cluster: Cluster,
    service: VLMService,
    *,
    say: Callable[[str], None],
    wait_s: float = WAIT_S,
    url: str | None = None,
    api_key: SecretStr | None = None,
    dimension: int | None = None,
) -> Deployed:
    """Apply a service, wait until it is ready, and prove that it serves.

    Interrupted anywhere, the same call goes on: what is applied stays and is found unchanged.

    Args:
        cluster: Where; its namespace must be the service's.
        service: What.
        say: Told what happens, a line at a time.
        wait_s: Seconds until it must be ready.
        url: Where to reach it, ending in `/v1`; None for the address that KServe reports, which only pods can reach.
        api_key: Bearer token of its server.
        dimension: Length that an embedding model's vectors must have, None for any.

    Raises:
        BadData: The cluster does not know a field, or refuses a value.
        CheckFailed: Another manager owns a field; it failed to become ready (`m4rag.deploy.waiting.NotReady`); or it
            does not answer as it should.
        UsageError: A service of that name is somebody else's.
        Unavailable: A permission or KServe is missing, or the server is gone.
    """
    if service.namespace != cluster.namespace:
        raise UsageError(f"a service for {service.namespace}, and a connection to {cluster.namespace}")
    *runtimes, manifest = render(service, fields(cluster, service.profile))
    before = _existing(cluster, manifest, say, wait_s)
    for runtime in runtimes:
        cluster.apply(runtime)
    applied = cluster.apply(manifest)
    outcome = _outcome(before, applied)
    where = f"{manifest['kind']} {cluster.namespace}/{service.name}"
    say(f"{where}: {outcome}")
    with observed(cluster, kind_of(manifest), service.name) as observer:
        ready = wait_ready(observer, where, timeout_s=wait_s, say=say)
    address = url or service_url(ready.service)
    if address is None:
        raise CheckFailed("it is ready and has no address", where=where, remedy="Check KServe's ingress settings.")
    try:
        proof = prove(address, service.model.served_name, service.model.task, api_key=api_key, dimension=dimension)
    except Unavailable as error:
        if url is not None:
            raise
        raise Unavailable(
            f"its pods are ready, but it was not reached: {error.what}",
            where=address,
            remedy=f"From outside the cluster: `kubectl port-forward` to {service.deployment}, and give --url.",
        ) from None
    return Deployed(
        kind=str(manifest["kind"]),
        name=service.name,
        namespace=cluster.namespace,
        outcome=outcome,
        url=address,
        spec=spec_hash(ready.service),
        images=_images(ready.pods),
        seconds={phase.value: round(seconds, 1) for phase, seconds in ready.seconds.items()},
        proof=proof,
    )


def fields(cluster: Cluster, profile: Profile) -> CRDFields:
    """What the cluster's KServe understands, from the server's own descriptions, which every account may read.

    The fields of LLMInferenceService are looked up for that profile only: they are in a document of megabytes.

    Raises:
        Unavailable: The server has the kind and does not describe it within two minutes of being asked.
    """
    deadline = time.monotonic() + DESCRIBED_IN_S
    served = {version: cluster.served(f"{GROUP}/{version}") or frozenset() for version in (*LLM_VERSIONS, "v1beta1")}
    llm_version = next((one for one in LLM_VERSIONS if LLM_INFERENCE_SERVICE.plural in served[one]), None)
    inference_service = INFERENCE_SERVICE.plural in served["v1beta1"] and SERVING_RUNTIME.plural in served["v1alpha1"]
    if llm_version is None or profile == "InferenceService":
        return CRDFields(inference_service, llm_version, llm_rollout_strategy=False, llm_scaling_keda=False)
    # A server describes a kind some time after it began to serve it. Without the description the spec would be another
    # than the one that is deployed, and the pods would be replaced.
    while (found := of_openapi(cluster.raw("/openapi/v2"))).llm_version != llm_version:
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the API server serves LLMInferenceService {llm_version} but does not describe it",
                where=cluster.url,
                remedy="See whether its CRD is accepted: `kubectl get crd -o yaml`.",
            )
        time.sleep(2.0)
    return found


def conditions(cluster: Cluster, *, run: str | None = None, name: str | None = None) -> list[Condition]:
    """How the services of m4rag's models are: all of the namespace (those that Helm made, too), those of a run, or one.

    Raises:
        Unavailable: A permission is missing, or the server is gone.
    """
    selector = names.MODEL if run is None else names.selector(run)
    found = []
    for kind in SERVICES:
        for service in cluster.list(kind, labels=selector).items:
            if name not in {None, name_of(service)}:
                continue
            pods = cluster.list(POD, labels=pods_of(kind, name_of(service))).items
            sight = explained(cluster, service, pods)
            found.append(
                Condition(
                    kind=kind.name,
                    name=name_of(service),
                    model=(service["metadata"].get("labels") or {}).get(names.MODEL),
                    run=(service["metadata"].get("labels") or {}).get(names.RUN),
                    expires_at=(service["metadata"].get("annotations") or {}).get(names.EXPIRES_AT),
                    pods=len(pods),
                    url=service_url(service),
                    diagnosis=diagnose(service, pods, sight.events, datetime.now(UTC), sight.logs),
                )
            )
    return found


def service_url(service: Object) -> str | None:
    """Base address of a service's OpenAI API inside the cluster, ending in `/v1`; None while it has none."""
    status = service.get("status") or {}
    addresses = [status.get("address") or {}, *(status.get("addresses") or ()), status]
    found = next((str(one["url"]) for one in addresses if one.get("url")), None)
    return None if found is None else f"{found.rstrip('/')}/v1"


def workflow_of(cluster: Cluster, pod: str) -> Owner | None:
    """The workflow that a pipeline step's pod belongs to: what it owns goes when it goes. None outside of one.

    Raises:
        Unavailable: The account may not, or the server is gone.
    """
    found = cluster.get(POD, pod)
    for owner in ((found or {}).get("metadata") or {}).get("ownerReferences") or ():
        if owner["kind"] == "Workflow":
            return Owner(api_version=owner["apiVersion"], kind="Workflow", name=owner["name"], uid=owner["uid"])
    return None


def _existing(cluster: Cluster, manifest: Object, say: Callable[[str], None], wait_s: float) -> Object | None:
    """The service of that name as it is, once one that is being deleted is gone.

    Raises:
        UsageError: It is not m4rag's.
    """
    kind, name = kind_of(manifest), manifest["metadata"]["name"]
    deadline = time.monotonic() + wait_s
    while (found := cluster.get(kind, name)) is not None and "deletionTimestamp" in found["metadata"]:
        if time.monotonic() > deadline:
            raise CheckFailed(
                "the one before is still being deleted",
                where=f"{kind.name} {name}",
                remedy="See which finalizer it waits for: `kubectl get -o yaml`.",
            )
        say(f"{kind.name} {name}: the one before is being deleted")
        time.sleep(5.0)
    if found is not None and (found["metadata"].get("labels") or {}).get(names.MANAGED_BY) != names.MANAGER:
        raise UsageError(
            "there is one of that name that m4rag did not make",
            where=f"{kind.name} {name} in {cluster.namespace}",
            remedy="Choose another --name, or remove it yourself.",
        )
    return found


def _outcome(before: Object | None, after: Object) -> Outcome:
    if before is None:
        return "created"
    return "unchanged" if before["metadata"]["generation"] == after["metadata"]["generation"] else "changed"


def _images(pods: Sequence[Object]) -> tuple[str, ...]:
    """Images of the pods' containers by digest, each once."""
    found = [
        str(status.get("imageID") or status.get("image"))
        for pod in pods
        for status in (pod.get("status") or {}).get("containerStatuses") or ()
    ]
    return tuple(sorted(set(found)))
