"""Models that a benchmark deploys for its own time: all are checked before the first takes a GPU."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from m4rag.deploy.catalog import Hardware, ServedModel, hardware, model
from m4rag.deploy.cluster import Cluster
from m4rag.deploy.deployment import deploy, workflow_of
from m4rag.deploy.names import service_name
from m4rag.deploy.removal import remove
from m4rag.deploy.vlm_service import VLMService, check_uri
from m4rag.errors import UsageError
from m4rag.parameters import from_params
from m4rag.settings import Settings

EXPIRES = timedelta(hours=48)
"""When anybody may remove what a killed run left; a run's steps may take 32 hours together, and some are retried."""


@dataclass(frozen=True)
class Wanted:
    """A model to deploy.

    Attributes:
        model: Name in the table of models, or a YAML file with one's own.
        uri: Its weights by commit or digest.
        hardware: Profile; "" for the model's own.
        replicas: Their number.
    """

    model: str
    uri: str
    hardware: str = ""
    replicas: int = 1

    def __post_init__(self) -> None:
        """Refuse what can't be deployed anywhere."""
        check_uri(self.uri)
        if self.served.task != "generate":
            raise UsageError(
                f"{self.model} makes vectors and answers no questions", remedy="Name a model that generates."
            )
        _ = self.profile

    @property
    def served(self) -> ServedModel:
        """The model in the table."""
        return model(self.model)

    @property
    def profile(self) -> Hardware:
        """Where it runs."""
        return hardware(self.hardware or self.served.hardware)

    def name(self, run: str) -> str:
        """Its service's name in a run."""
        return service_name(self.served.name, run)


@dataclass(frozen=True)
class Placement:
    """Where the site wants a model's pods, in place of what the profile says.

    Attributes:
        node_selector: Labels of the nodes; None as the profile says.
        tolerations: Taints that they may have; None as the profile says.
    """

    node_selector: dict[str, str] | None = None
    tolerations: list[dict[str, str]] | None = None


@dataclass(frozen=True)
class Endpoint:
    """A model that answers.

    Attributes:
        url: Base address of its OpenAI API, ending in `/v1`.
        service: Name of its service; "" of a server that was there before.
        model: Name in the table; "" likewise.
        uri: Its weights; "" likewise.
        images: Images that its pods run.
        seconds: Seconds of waiting by phase.
    """

    url: str
    service: str = ""
    model: str = ""
    uri: str = ""
    images: tuple[str, ...] = ()
    seconds: Mapping[str, float] | None = None


def placed(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Check the models of a benchmark together.

    Args:
        models: Fields of `Wanted`; none for the model that M4RAG_VLM_URL names.

    Returns:
        One entry for each: `wanted`, its fields, and `node_selector` and `tolerations` of its profile.

    Raises:
        UsageError: One can't be deployed, or is named twice.
    """
    if not models:
        return [{"wanted": {}, "node_selector": {}, "tolerations": []}]
    all_wanted = [from_params(Wanted, **fields) for fields in models]
    names = [wanted.served.name for wanted in all_wanted]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{twice[0]} is named twice", remedy="A run measures a model once; start another run.")
    return [
        {
            "wanted": dict(wanted.__dict__),
            "node_selector": wanted.profile.node_selector,
            "tolerations": [one.model_dump(exclude_none=True) for one in wanted.profile.tolerations],
        }
        for wanted in all_wanted
    ]


def serve(
    fields: Mapping[str, Any], run: str, settings: Settings, say: Callable[[str], None], *, placement: Placement
) -> Endpoint:
    """Deploy a model for a run and prove that it answers; or find the one that M4RAG_VLM_URL names.

    What is deployed belongs to the workflow of this pod, where there is one, and expires after 48 hours.

    Args:
        fields: Those of `Wanted`; none for the model that M4RAG_VLM_URL names.
        run: The run; removing it needs the same.
        settings: The images, and the model that is there.
        say: Told what happens, a line at a time.
        placement: Where the site wants the pods.

    Raises:
        M4ragError: As `deploy` does; or nothing says which model or image.
    """
    if not fields:
        if settings.vlm_url is None:
            raise UsageError(
                "no model to measure", remedy="Name models, or set M4RAG_VLM_URL to the address of one that serves."
            )
        return Endpoint(url=settings.vlm_url)
    wanted = from_params(Wanted, **fields)
    if settings.vllm_image is None:
        raise UsageError("no image of vLLM", remedy="Set M4RAG_VLLM_IMAGE to registry/name@sha256:<digest>.")
    cluster = Cluster.connect()
    service = VLMService(
        name=wanted.name(run),
        namespace=cluster.namespace,
        model=wanted.served,
        uri=wanted.uri,
        hardware=_moved(wanted.profile, placement),
        image=settings.vllm_image,
        replicas=wanted.replicas,
        run=run,
        expires_at=datetime.now(UTC) + EXPIRES,
        owner=workflow_of(cluster, socket.gethostname()),
    )
    done = deploy(cluster, service, say=say, api_key=settings.vlm_api_key)
    return Endpoint(done.url, done.name, wanted.served.name, wanted.uri, done.images, done.seconds)


def take_away(fields: Mapping[str, Any], run: str, say: Callable[[str], None]) -> None:
    """Remove what `serve` deployed with the same arguments, and wait until its pods are gone.

    Raises:
        CheckFailed: Pods are still there in the end.
        Unavailable: The account may not, or the server is gone.
    """
    if not fields:
        return
    name = from_params(Wanted, **fields).name(run)
    removed = remove(Cluster.connect(), run=run, name=name, say=say)
    for one in removed:
        say(f"removed {one.kind} {one.name}")
    if not removed:
        say(f"{name}: nothing was there")


def _moved(profile: Hardware, placement: Placement) -> Hardware:
    """A profile whose pods go where the site wants them."""
    asked = {name: value for name, value in placement.__dict__.items() if value}
    return Hardware.model_validate(profile.model_dump() | asked)
