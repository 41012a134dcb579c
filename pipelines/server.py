"""One Kubeflow Pipelines server: its REST API through the client that is generated from the published OpenAPI.

`kfp.Client` is not used: it hides `plugins_input`, writes to the home folder and warns on the terminal.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from m4rag.errors import BadData, M4ragError, Unavailable, UsageError
from pipelines.features import Version, parse_version
from pipelines.ir import IR
from pipelines.task_states import Node

IN_CLUSTER_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
IN_CLUSTER_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where Kubeflow projects a service account token of audience `pipelines.kubeflow.org`."""
IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

GET_TRIES = 4
CREATE_TRIES = 3
TIMEOUT_S = (10, 60)
"""Seconds to connect, and to read an answer."""


@dataclass(frozen=True)
class Access:
    """How to reach a server.

    Attributes:
        host: Address under which `/apis/v2beta1` is found, without it.
        ui: Address of the web interface; where it differs, `host` is the bare API server.
        namespace: The user's namespace on a multi-user server; empty elsewhere.
        token_file: File with a bearer token, read before every request; None sends no token.
        ca_file: Certificates of the authority that signed the server's; None takes the public ones.
    """

    host: str
    ui: str
    namespace: str = ""
    token_file: Path | None = None
    ca_file: Path | None = None


def access(host: str | None, namespace: str | None, token_file: Path | None, ca_file: Path | None) -> Access:
    """Access from options, else from the variables that kfp reads, else from what a pod finds in its place.

    Raises:
        UsageError: No address, or a file that is not there.
    """
    inside = "KUBERNETES_SERVICE_HOST" in os.environ
    host = host or os.environ.get("KF_PIPELINES_ENDPOINT") or (IN_CLUSTER_HOST if inside else None)
    if host is None:
        raise UsageError(
            "which Kubeflow Pipelines server?",
            remedy="--host or KF_PIPELINES_ENDPOINT, e.g. http://localhost:8888 after "
            "`kubectl -n kubeflow port-forward svc/ml-pipeline 8888`.",
        )
    if not host.startswith(("http://", "https://")):
        host = f"https://{host}"
    named = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    if token_file is None and (named or IN_CLUSTER_TOKEN.exists()):
        token_file = Path(named) if named else IN_CLUSTER_TOKEN
    for option, path in (("--token-file", token_file), ("--ca-file", ca_file)):
        if path is not None and not path.is_file():
            raise UsageError("no such file", where=f"{option} {path}")
    if namespace is None and inside and IN_CLUSTER_NAMESPACE.exists():
        namespace = IN_CLUSTER_NAMESPACE.read_text(encoding="utf-8").strip()
    host = host.rstrip("/")
    ui = os.environ.get("KF_PIPELINES_UI_ENDPOINT", host).rstrip("/")
    return Access(host, ui, namespace or "", token_file, ca_file)


@dataclass(frozen=True)
class Health:
    """What a server says of itself.

    Attributes:
        tag: Its release, as it writes it.
        version: The same as numbers; None where it names no release.
        multi_user: Whether everything belongs to a namespace.
    """

    tag: str
    version: Version | None
    multi_user: bool


@dataclass(frozen=True)
class Run:
    """A run as the server reports it.

    Attributes:
        key: Its id.
        name: Its name.
        state: One of the server's `RuntimeState` names.
        message: The server's own error message; mostly empty.
        nodes: The nodes of its workflow.
        plugins: Per plugin, what it left: `{"mlflow": {"run_url": ...}}`, and `state_message` where it failed.
    """

    key: str
    name: str
    state: str
    message: str
    nodes: tuple[Node, ...]
    plugins: dict[str, dict[str, str]]


class Unsure(Unavailable):
    """No answer, or one that leaves open whether the request was carried out."""


class Refused(Unavailable):
    """The server wants a token, or a better one (HTTP 401)."""


class _Exists(M4ragError):
    """There is one of that name (HTTP 409)."""


class Server:
    """The calls that launching needs. GETs are repeated where that can help; nothing else is.

    Args:
        access: How to reach it.
        sleep: Waits some seconds between tries of a creation.
    """

    def __init__(self, access: Access, sleep: Callable[[float], None] = time.sleep) -> None:
        import kfp_server_api as api
        import urllib3

        self.access = access
        self._sleep = sleep
        # Retries are ours to report, and the library would print one warning for each.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        configuration = api.Configuration(host=access.host)
        configuration.ssl_ca_cert = str(access.ca_file) if access.ca_file else None
        configuration.retries = urllib3.Retry(
            total=GET_TRIES,
            connect=2,
            other=0,
            redirect=0,
            status_forcelist=(429, 502, 503, 504),
            allowed_methods={"GET"},
            backoff_factor=0.5,
            raise_on_redirect=False,
            raise_on_status=False,
            retry_after_max=30,
        )
        if access.token_file is not None:
            configuration.api_key["authorization"] = _token(access.token_file)
            configuration.api_key_prefix["authorization"] = "Bearer"
            # Before every request: the kubelet replaces a projected token long before it expires.
            configuration.refresh_api_key_hook = _reader(access.token_file)
        self._api = api
        self._client = api.ApiClient(configuration)
        self._client.user_agent = "m4rag"

    def health(self) -> Health:
        """The server's release and mode.

        Raises:
            Unavailable: It can't be reached, refuses, or is no Kubeflow Pipelines server.
        """
        self._call(self._api.HealthzServiceApi(self._client).healthz_service_get_healthz)
        # The published API leaves the release out of this answer, and the generated model drops it.
        answer = json.loads(self._client.last_response.data)
        tag = str(answer.get("tag_name") or "unknown")
        return Health(tag, parse_version(tag), bool(answer.get("multi_user")))

    def experiment(self, name: str) -> str:
        """Id of an experiment, which is created if there is none of that name."""
        experiments = self._api.ExperimentServiceApi(self._client)

        def find() -> str | None:
            found = self._call(
                experiments.experiment_service_list_experiments,
                namespace=self.access.namespace or None,
                filter=_named(name),
            )
            return next((one.experiment_id for one in found.experiments or [] if one.display_name == name), None)

        body = self._api.V2beta1Experiment(display_name=name, namespace=self.access.namespace or None)
        key, _ = self._found_or_made(
            find,
            lambda: self._call(experiments.experiment_service_create_experiment, body).experiment_id,
        )
        return key

    def version(self, ir: IR, path: Path) -> tuple[str, str, bool]:
        """Upload a compiled pipeline, unless its content is there.

        Returns:
            Ids of the pipeline and of its version, and whether the version was there.
        """
        pipelines = self._api.PipelineServiceApi(self._client)
        uploads = self._api.PipelineUploadServiceApi(self._client)

        def find_pipeline() -> str | None:
            found = self._call(
                pipelines.pipeline_service_list_pipelines,
                namespace=self.access.namespace or None,
                filter=_named(ir.name),
            )
            return next((one.pipeline_id for one in found.pipelines or [] if _is(one, ir.name)), None)

        body = self._api.V2beta1Pipeline(name=ir.name, display_name=ir.name, namespace=self.access.namespace or None)
        pipeline, _ = self._found_or_made(
            find_pipeline,
            lambda: self._call(pipelines.pipeline_service_create_pipeline, body).pipeline_id,
        )

        def find_version() -> str | None:
            found = self._call(pipelines.pipeline_service_list_pipeline_versions, pipeline, filter=_named(ir.version))
            versions = found.pipeline_versions or []
            return next((one.pipeline_version_id for one in versions if _is(one, ir.version)), None)

        version, there = self._found_or_made(
            find_version,
            lambda: (
                self._call(
                    uploads.upload_pipeline_version, str(path), name=ir.version, pipelineid=pipeline
                ).pipeline_version_id
            ),
        )
        return pipeline, version, there

    def create_run(
        self,
        name: str,
        experiment: str,
        version: tuple[str, str],
        arguments: dict[str, Any],
        *,
        pipeline_root: str | None = None,
        service_account: str | None = None,
        plugins: dict[str, dict[str, str]] | None = None,
    ) -> str:
        """Start a run, once: where an answer is lost, the run is looked for before it is asked for again.

        Args:
            name: Its name.
            experiment: Id of its experiment.
            version: Ids of pipeline and version.
            arguments: Its parameters.
            pipeline_root: Where artifacts go; None leaves it to the server.
            service_account: Kubernetes service account of its pods; None leaves it to the server.
            plugins: Input of the server's plugins.

        Returns:
            Id of the run.
        """
        launch = f"m4rag launch {uuid.uuid4().hex}"
        body = self._api.V2beta1Run(
            experiment_id=experiment,
            display_name=name,
            description=launch,
            pipeline_version_reference=self._api.V2beta1PipelineVersionReference(
                pipeline_id=version[0], pipeline_version_id=version[1]
            ),
            runtime_config=self._api.V2beta1RuntimeConfig(parameters=arguments, pipeline_root=pipeline_root),
            service_account=service_account,
            plugins_input=plugins,
        )
        runs = self._api.RunServiceApi(self._client)
        for tried in range(1, CREATE_TRIES + 1):
            try:
                return str(self._call(runs.run_service_create_run, body, experiment_id=experiment).run_id)
            except Unsure:
                found = self._call(
                    runs.run_service_list_runs,
                    experiment_id=experiment,
                    namespace=self.access.namespace or None,
                    filter=_named(name),
                )
                for run in found.runs or []:
                    if run.description == launch:
                        return str(run.run_id)
                if tried == CREATE_TRIES:
                    raise
                self._sleep(tried)
        raise AssertionError

    def run(self, key: str) -> Run:
        """A run with its nodes.

        Raises:
            UsageError: There is none of that id.
        """
        found = self._call(self._api.RunServiceApi(self._client).run_service_get_run, key)
        details = found.run_details.task_details if found.run_details else None
        return Run(
            key=str(found.run_id),
            name=str(found.display_name),
            state=str(found.state or "PENDING"),
            message=_message(found),
            nodes=tuple(_node(task) for task in details or []),
            plugins={name: _entries(output) for name, output in (found.plugins_output or {}).items()},
        )

    def cancel(self, key: str) -> None:
        """Ask for the end of a run; its exit tasks may not get to run."""
        self._call(self._api.RunServiceApi(self._client).run_service_terminate_run, key)

    def url(self, key: str) -> str:
        """Page of a run in the web interface."""
        return f"{self.access.ui}/#/runs/details/{key}"

    def _found_or_made(self, find: Callable[[], str | None], make: Callable[[], Any]) -> tuple[str, bool]:
        """An id, and whether it was there: names are unique, so what another one made first is found by its name."""
        found = find()
        if found is not None:
            return found, True
        try:
            return str(make()), False
        except (_Exists, Unsure):
            found = find()
            if found is None:
                raise
            return found, True

    def _call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        import urllib3

        named = {name: value for name, value in named.items() if value is not None}
        host = self.access.host
        try:
            answer = function(*arguments, **named, _request_timeout=TIMEOUT_S)
        except self._api.ApiException as error:
            raise self._failure(error.status, _text(error.body) or str(error.reason)) from None
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, urllib3.exceptions.SSLError):
                remedy = "Give the authority's certificates with --ca-file."
                raise Unavailable(self._clean(f"no trusted connection: {reason}"), where=host, remedy=remedy) from None
            raise Unsure(self._clean(f"no answer: {reason}"), where=host, remedy="Is --host right?") from None
        kind = self._client.last_response.getheader("content-type") or ""
        if "json" not in kind:
            raise Unavailable(
                f"answered with {kind or 'no content type'}, not with JSON",
                where=host,
                remedy="Is --host the API (often .../pipeline), and is a token needed (--token-file)?",
            )
        return answer

    def _failure(self, status: int, message: str) -> M4ragError:
        text, host = self._clean(f"HTTP {status}: {message}"), self.access.host
        if status in (0, 408, 429) or status >= 500:
            return Unsure(text, where=host)
        if 300 <= status < 400:
            text, remedy = f"HTTP {status}: redirects, as a login page does", "Give a token with --token-file."
            return Unavailable(text, where=host, remedy=remedy)
        if status == 401:
            return Refused(text, where=host, remedy=self._token_remedy())
        if status == 403:
            remedy = f"Ask for the right in namespace {self.access.namespace!r}, or name another with --namespace."
            return Unavailable(text, where=host, remedy=remedy)
        kinds: dict[int, type[M4ragError]] = {404: UsageError, 409: _Exists}
        return kinds.get(status, BadData)(text, where=host)

    def _token_remedy(self) -> str:
        path = self.access.token_file
        if path is None:
            return "Give a token with --token-file."
        expiry = _expiry(_token(path))
        if expiry is not None and expiry <= datetime.now(UTC):
            return f"The token in {path} expired at {expiry:%Y-%m-%d %H:%M} UTC: write a new one to it."
        return f"Write a token to {path} that this server takes (audience pipelines.kubeflow.org)."

    def _clean(self, text: str) -> str:
        """A message in one line without the token, which a proxy may have quoted."""
        if self.access.token_file is not None:
            text = text.replace(_token(self.access.token_file), "[token]")
        return " ".join(text.split())[:1000]


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't be read: {type(error).__name__}", where=f"token file {path}") from None
    if not token or any(letter.isspace() for letter in token):
        raise UsageError("holds no token", where=f"token file {path}", remedy="Write the bare token to it.")
    return token


def _reader(path: Path) -> Callable[[Any], None]:
    def refresh(configuration: Any) -> None:
        configuration.api_key["authorization"] = _token(path)

    return refresh


def _named(name: str) -> str:
    predicate = {"operation": "EQUALS", "key": "display_name", "string_value": name}
    return json.dumps({"predicates": [predicate]})


def _is(resource: Any, name: str) -> bool:
    """Servers before 2.14 know display names only."""
    return name in (resource.name, resource.display_name)


def _text(body: str | bytes | None) -> str:
    """The message inside an error answer: gRPC's, the upload endpoint's, or the text itself."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    try:
        answer = json.loads(text)
    except ValueError:
        return text
    if not isinstance(answer, dict):
        return text
    return str(answer.get("message") or answer.get("error_message") or answer.get("error") or text)


def _message(resource: Any) -> str:
    """Why a run or task failed, where the server says so: its error, else that of its last state."""
    if resource.error is not None and resource.error.message:
        return str(resource.error.message)
    errors = [status.error for status in resource.state_history or [] if status.error is not None]
    return str(errors[-1].message) if errors else ""


def _node(task: Any) -> Node:
    return Node(
        # The server puts the node's id here; the pod's own name differs from it.
        key=str(task.pod_name or task.task_id),
        name=str(task.display_name),
        state=str(task.state or "PENDING"),
        children=tuple(str(child.pod_name or child.task_id) for child in task.child_tasks or []),
        started=task.start_time.isoformat() if task.start_time else "",
        message=_message(task),
    )


def _entries(output: Any) -> dict[str, str]:
    entries = {name: str(entry.value) for name, entry in (output.entries or {}).items()}
    if output.state == "PLUGIN_FAILED":
        entries["state_message"] = str(output.state_message or "failed")
    return entries


def _expiry(token: str) -> datetime | None:
    """When a JSON web token expires; None for other tokens. Not verified: only a message hangs on it."""
    try:
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        return datetime.fromtimestamp(claims["exp"], UTC)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError):
        return None
