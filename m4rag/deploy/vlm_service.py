"""A served model as the objects that KServe makes it from. Pure: the same service renders to the same objects.

Two profiles. `InferenceService`: one deployment behind a ServingRuntime of its own, in Standard mode (no Knative).
`LLMInferenceService`: KServe's preset starts vLLM behind an endpoint picker that knows who holds which prefix; worth it
from two replicas. Its route has no time limit; that of an InferenceService is 60 s unless `timeout` says more.

A pod that ends gets `PRE_STOP_S` to leave the route, then vLLM finishes what runs for at most the longest answer
(`timeout_s`), then `MARGIN_S` to exit. The grace period is their sum, so no answer is cut off.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from m4rag.deploy.catalog import Hardware, ServedModel, combined, explained
from m4rag.deploy.crd import GROUP, CRDFields
from m4rag.deploy.names import EXPIRES_AT, SPEC, check_name, labels, timestamp
from m4rag.errors import Unavailable, UsageError
from m4rag.manifests import digest, short

Profile = Literal["InferenceService", "LLMInferenceService"]

PORT = 8080
PRE_STOP_S = 15
MARGIN_S = 15
STARTUP_S = 2400
"""Until a server that does not answer is killed; longer than vLLM itself waits for its engine, which says more."""

SCRATCH = "/scratch"
MODEL_PATH = "/mnt/models"
"""Where KServe puts the weights."""

HUB_COMMIT = re.compile(r"hf://[\w.-]+/[\w.-]+:[0-9a-f]{40}", re.ASCII)
OCI_DIGEST = re.compile(r"oci://[\w.:-]+(/[\w.-]+)+@sha256:[0-9a-f]{64}", re.ASCII)
BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]+/[\w./=-]+", re.ASCII)
CLAIM = re.compile(r"pvc://[a-z0-9][a-z0-9.-]*(/[\w./=-]+)?", re.ASCII)

IMAGE = re.compile(r"[\w.:-]+(/[\w.-]+)*(:[\w.-]+)?(@sha256:[0-9a-f]{64})?", re.ASCII)
IMAGE_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


class Owner(BaseModel):
    """An object of the same namespace that the service belongs to: when it goes, Kubernetes removes the service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_version: str
    kind: str
    name: str
    uid: str

    def reference(self) -> dict[str, str]:
        """The entry of `ownerReferences`."""
        return {"apiVersion": self.api_version, "kind": self.kind, "name": self.name, "uid": self.uid}


class Scaling(BaseModel):
    """Scaling by KServe through KEDA, on the requests that run and wait.

    Attributes:
        min_replicas: Replicas at least.
        max_replicas: Replicas at most.
        prometheus: Address of the Prometheus that scrapes vLLM.
        requests_per_replica: Running and waiting requests that one replica should have; measure where it saturates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(ge=1)
    max_replicas: int = Field(ge=1)
    prometheus: str = Field(pattern=r"^https?://[\w.:/-]+$")
    requests_per_replica: int = Field(ge=1)


class VLMService(BaseModel):
    """A model on a cluster.

    Attributes:
        name: Name of the objects; see `m4rag.deploy.names.service_name`.
        namespace: Namespace they are in.
        model: What is served, and with which arguments.
        uri: Its weights: `hf://owner/name:<commit>`, `oci://...@sha256:<digest>`, `s3://bucket/path` or
            `pvc://claim/path`. The latter two are what their owner puts there.
        hardware: Where it runs.
        image: vLLM's image by digest.
        allow_tag: Take an image by tag, for development: what runs may change without anybody deploying.
        profile: `InferenceService` or `LLMInferenceService`.
        replicas: Their number; None if somebody else scales the deployment.
        scaling: Have KServe scale it, in place of `replicas`.
        rollout: `surge` starts the new pod first and needs a spare GPU; `replace` stops the old one first.
        run: Run that it belongs to; None for a service that stays.
        expires_at: When anybody may remove it; None for never.
        owner: What it goes away with.
        service_account: Account whose secrets KServe uses to fetch the weights; None for the namespace's default.
        timeout_s: Seconds that the longest answer may take.
        stopped: Keep the objects and free the GPUs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    namespace: str
    model: ServedModel
    uri: str
    hardware: Hardware
    image: str
    allow_tag: bool = False
    profile: Profile = "InferenceService"
    replicas: int | None = Field(1, ge=1, le=1000)
    scaling: Scaling | None = None
    rollout: Literal["surge", "replace"] = "surge"
    run: str | None = None
    expires_at: AwareDatetime | None = None
    owner: Owner | None = None
    service_account: str | None = None
    timeout_s: int = Field(600, ge=1, le=3600)
    stopped: bool = False

    @model_validator(mode="wrap")
    @classmethod
    def _in_words(cls, values: Any, handler: ModelWrapValidatorHandler[VLMService]) -> VLMService:
        """What is wrong with a value, as an error that a user can act on."""
        try:
            service = handler(values)
        except ValidationError as error:
            raise UsageError(explained(error), where="the service") from None
        service.check()
        return service

    def check(self) -> None:
        """Whether the parts go together.

        Raises:
            UsageError: They don't, or one of them is not what it should be.
        """
        check_name(self.name)
        check_uri(self.uri)
        check_image(self.image, allow_tag=self.allow_tag)
        wanted, there = self.model.tensor_parallel, max(self.hardware.gpus, 1)
        if wanted != there:
            raise UsageError(
                f"{self.model.name} runs on {wanted} GPU{'s' * (wanted > 1)}, and {self.hardware.name} has {there}",
                remedy=f"Take the profile {self.model.hardware}, or a model of your own with tensor_parallel {there}.",
            )
        if self.scaling is not None and self.replicas is not None:
            raise UsageError("both `replicas` and `scaling` are given", remedy="Give one of them.")
        if self.scaling is not None and self.profile == "InferenceService":
            raise UsageError(
                "KServe scales an InferenceService without cool-down and fallback",
                remedy=f"Leave `scaling` out and let a ScaledObject of yours scale the deployment {self.deployment}.",
            )

    @property
    def deployment(self) -> str:
        """Name of the Deployment that KServe makes, which an external scaler targets."""
        return f"{self.name}-{'predictor' if self.profile == 'InferenceService' else 'kserve'}"

    @property
    def grace_s(self) -> int:
        """Seconds between the order to end and the kill."""
        return PRE_STOP_S + self.timeout_s + MARGIN_S


def check_uri(uri: str) -> str:
    """An address of weights that names one version of them, as far as its kind can.

    Raises:
        UsageError: It is of another kind, or could mean other weights tomorrow.
    """
    if any(form.fullmatch(uri) for form in (HUB_COMMIT, OCI_DIGEST, BUCKET, CLAIM)):
        return uri
    kind = uri.partition("://")[0]
    if kind == "hf":
        what, remedy = "names no commit", "Write hf://owner/name:<40 hex digits>; a branch or a tag can move."
    elif kind == "oci":
        what, remedy = "names no digest", "Write oci://registry/name@sha256:<64 hex digits>; a tag can move."
    else:
        what, remedy = "is not an address of weights", "Write hf://, oci://, s3:// or pvc://."
    raise UsageError(what, where=uri, remedy=remedy)


def check_image(image: str, *, allow_tag: bool) -> str:
    """An image by digest, or by tag where that is allowed.

    Raises:
        UsageError: It is neither.
    """
    if not IMAGE.fullmatch(image):
        raise UsageError("not a reference to an image", where=image, remedy="Write registry/name@sha256:<digest>.")
    if not allow_tag and not IMAGE_DIGEST.search(image):
        raise UsageError(
            "the image is not named by its digest, so what runs could change without a deployment",
            where=image,
            remedy="Write registry/name@sha256:<digest>; for development, allow tags.",
        )
    return image


def render(service: VLMService, fields: CRDFields) -> tuple[dict[str, Any], ...]:
    """The objects of a service, in the order to apply them.

    Args:
        service: What to serve.
        fields: What the cluster's KServe understands.

    Raises:
        Unavailable: The cluster's KServe lacks what the profile needs.
    """
    if service.profile == "InferenceService":
        if not fields.inference_service:
            raise Unavailable("the cluster has no InferenceService", remedy="Install KServe 0.20 or newer.")
        objects = [_runtime(service), _inference_service(service)]
    else:
        objects = [_llm_inference_service(service, fields)]
    spec = short(digest([[one["kind"], one["metadata"]["labels"], one["spec"]] for one in objects]))
    for one in objects:
        one["metadata"].setdefault("annotations", {})[SPEC] = spec
    served = objects[-1]
    if service.profile == "InferenceService":
        # KServe copies the annotations of an InferenceService to its pods, and those of the predictor over them. A
        # later expiry must not restart the pods, so there they find a constant.
        copied = {SPEC: spec} | ({EXPIRES_AT: "see the InferenceService"} if service.expires_at else {})
        served["spec"]["predictor"]["annotations"] = copied
    else:
        served["spec"]["annotations"] = {SPEC: spec}
    return tuple(objects)


def arguments(service: VLMService) -> list[str]:
    """Arguments of vLLM, except for those that only one of the profiles gives."""
    return [
        f"--max-model-len={service.model.max_model_len}",
        f"--tensor-parallel-size={service.model.tensor_parallel}",
        f"--shutdown-timeout={service.timeout_s}",  # 0 by default, which cuts off what runs
        *(one.text for one in combined(service.hardware, service.model).arguments),
    ]


def environment(service: VLMService) -> list[dict[str, str]]:
    """The container's variables. Secrets are none of them: KServe fetches the weights with the account's."""
    variables = {one.name: one.value for one in combined(service.hardware, service.model).environment}
    # The image's user has no home that it may write to, and with a foreign user id not even a name.
    variables |= {"HOME": SCRATCH, "USER": "vllm", "VLLM_CACHE_ROOT": f"{SCRATCH}/vllm"}
    if not service.uri.startswith("hf://"):
        variables["HF_HUB_OFFLINE"] = "1"
    return [{"name": name, "value": value} for name, value in variables.items()]


def _runtime(service: VLMService) -> dict[str, Any]:
    """A ServingRuntime of the service's own, so that nobody else's change reaches it."""
    container = _container(service) | {
        "name": "kserve-container",
        # The `vllm` command is missing in CPU builds; this module is in both.
        "command": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
        "args": [
            f"--model={MODEL_PATH}",
            f"--port={PORT}",
            f"--served-model-name={service.model.served_name}",
            *arguments(service),
        ],
        "ports": [{"name": "http1", "containerPort": PORT, "protocol": "TCP"}],
    }
    container |= {probe: {"httpGet": {"path": "/health", "port": PORT}} | times for probe, times in PROBES.items()}
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": _metadata(service),
        "spec": {
            "annotations": {"prometheus.kserve.io/path": "/metrics", "prometheus.kserve.io/port": str(PORT)},
            "supportedModelFormats": [{"name": "vLLM", "version": "1", "autoSelect": False}],
            "protocolVersions": ["v2"],
            "multiModel": False,
            "containers": [container],
            "volumes": _volumes(service),
        },
    }


def _inference_service(service: VLMService) -> dict[str, Any]:
    predictor: dict[str, Any] = _pod(service) | {
        "timeout": service.timeout_s,
        "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": ROLLOUT[service.rollout]},
        "model": {
            "modelFormat": {"name": "vLLM", "version": "1"},
            "runtime": service.name,
            "storageUri": service.uri,
            # Here and not in the runtime: KServe's defaults (1 core, 2Gi) fill this in and win.
            "resources": _resources(service),
        },
    }
    if service.replicas is not None:
        predictor |= {"minReplicas": service.replicas, "maxReplicas": service.replicas}
    metadata = _metadata(service)
    metadata["annotations"] = _annotations(service) | {
        f"{GROUP}/deploymentMode": "Standard",
        f"{GROUP}/autoscalerClass": "external" if service.replicas is None else "none",
    }
    return {
        "apiVersion": f"{GROUP}/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": predictor},
    }


def _llm_inference_service(service: VLMService, fields: CRDFields) -> dict[str, Any]:
    if fields.llm_version is None:
        raise Unavailable(
            "the cluster has no LLMInferenceService",
            remedy="Install KServe's llmisvc charts, or take the profile InferenceService.",
        )
    # The preset starts vLLM, names the model and probes over TLS; what is said here is merged into it by name.
    container = _container(service) | {"name": "main", "args": arguments(service), "resources": _resources(service)}
    container |= PROBES
    spec: dict[str, Any] = {
        "labels": labels(service.model.name, service.run),
        "model": {"uri": service.uri, "name": service.model.served_name},
        "parallelism": {"tensor": service.model.tensor_parallel},
        "router": {"gateway": {}, "route": {}},
        "template": _pod(service) | {"containers": [container], "volumes": _volumes(service)},
    }
    if service.model.task == "generate":  # embeddings have no prefix to be routed to
        spec["router"]["scheduler"] = {}
    if fields.llm_rollout_strategy:
        spec["rolloutStrategy"] = ROLLOUT[service.rollout]
    if service.scaling is not None:
        if not fields.llm_scaling_keda:
            raise Unavailable(
                "this KServe's LLMInferenceService has no scaling.keda",
                remedy=f"Leave `scaling` out; let a ScaledObject of yours scale the deployment {service.deployment}.",
            )
        spec["scaling"] = _scaling(service.scaling, service)
    elif service.replicas is not None:
        spec["replicas"] = service.replicas
    metadata = _metadata(service)
    if annotations := _annotations(service):
        metadata["annotations"] = annotations
    return {
        "apiVersion": f"{GROUP}/{fields.llm_version}",
        "kind": "LLMInferenceService",
        "metadata": metadata,
        "spec": spec,
    }


PROBES: dict[str, dict[str, int]] = {
    "startupProbe": {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": STARTUP_S // 10},
    "readinessProbe": {"periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3},
    # A minute: preprocessing a burst of images holds the loop that answers.
    "livenessProbe": {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
}

ROLLOUT = {
    "surge": {"maxUnavailable": 0, "maxSurge": 1},
    "replace": {"maxUnavailable": 1, "maxSurge": 0},
}
"""KServe's default of 25 % each waits for ever on a full pool."""


def _container(service: VLMService) -> dict[str, Any]:
    """What both profiles say of the container."""
    return {
        "image": service.image,
        "imagePullPolicy": "IfNotPresent",
        "env": environment(service),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_S}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            # NVIDIA's hook writes the linker's cache into the container before it starts.
            "readOnlyRootFilesystem": service.hardware.gpus == 0,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "dshm", "mountPath": "/dev/shm"},  # noqa: S108 - a mount of the pod
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - likewise
        ],
    }


def _volumes(service: VLMService) -> list[dict[str, Any]]:
    return [
        {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": service.hardware.shm}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]


def _pod(service: VLMService) -> dict[str, Any]:
    """What both profiles say of the pod."""
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": service.grace_s,
        "automountServiceAccountToken": False,
        # Otherwise a Service named `vllm` sets VLLM_PORT, and vLLM does not start.
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    if service.service_account is not None:
        pod["serviceAccountName"] = service.service_account
    if service.hardware.node_selector:
        pod["nodeSelector"] = dict(service.hardware.node_selector)
    if service.hardware.tolerations:
        pod["tolerations"] = [one.model_dump(exclude_none=True) for one in service.hardware.tolerations]
    return pod


def _resources(service: VLMService) -> dict[str, dict[str, str]]:
    gpus = {service.hardware.gpu_resource: str(service.hardware.gpus)} if service.hardware.gpus else {}
    return {
        "requests": service.hardware.requests.model_dump() | gpus,
        "limits": service.hardware.limits.model_dump() | gpus,
    }


def _scaling(scaling: Scaling, service: VLMService) -> dict[str, Any]:
    of = f'{{namespace="{service.namespace}",llm_isvc_name="{service.name}"}}'
    return {
        "minReplicas": scaling.min_replicas,
        "maxReplicas": scaling.max_replicas,
        "keda": {
            "pollingInterval": 15,
            "cooldownPeriod": 600,  # a new replica takes minutes
            "initialCooldownPeriod": STARTUP_S,
            "fallback": {"failureThreshold": 3, "replicas": scaling.min_replicas},
            "triggers": [
                {
                    "type": "prometheus",
                    "metricType": "AverageValue",
                    "metadata": {
                        "serverAddress": scaling.prometheus,
                        "threshold": str(scaling.requests_per_replica),
                        # A sum: KEDA takes one value, and there is a series for every pod.
                        "query": f"sum(vllm:num_requests_running{of} + vllm:num_requests_waiting{of})",
                    },
                }
            ],
        },
    }


def _metadata(service: VLMService) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": service.name,
        "namespace": service.namespace,
        "labels": labels(service.model.name, service.run),
    }
    if service.owner is not None:
        metadata["ownerReferences"] = [service.owner.reference()]
    return metadata


def _annotations(service: VLMService) -> dict[str, str]:
    made = {} if service.expires_at is None else {EXPIRES_AT: timestamp(service.expires_at)}
    return made | ({f"{GROUP}/stop": "true"} if service.stopped else {})
