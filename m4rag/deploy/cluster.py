"""Talk to a Kubernetes API server: apply, get, list, watch, delete, in the words of this package's errors.

Objects are plain dictionaries, as the server writes them. Every call is safe to repeat, so what a busy or changing
server refuses for the moment (409 without a field's owner, 429, 5xx) is asked again. The official client makes the
connection (kubeconfigs, exec plugins, tokens that expire); its dynamic client is not used, because that keeps what it
discovers in a file that all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from m4rag.deploy.refusals import Again, Gone, NotFound, Unexplained, refusal
from m4rag.errors import BadData, Unavailable, UsageError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from urllib3 import HTTPResponse

Object = dict[str, Any]
"""A Kubernetes object as the API server writes it."""

MANAGER = "m4rag"
ATTEMPTS = 5
BACKOFF_S = 0.2
TIMEOUT_S = 30.0
HTTP_GONE = 410

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Kind:
    """A kind of object and where the server keeps it.

    Attributes:
        api_version: `group/version`, or `v1` for the core group.
        name: The kind, e.g. `Pod`.
        plural: How addresses and permissions name it, e.g. `pods`.
    """

    api_version: str
    name: str
    plural: str

    @property
    def group(self) -> str:
        """The API group, "" for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def root(self) -> str:
        """The path below which the server keeps this group and version."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"


INFERENCE_SERVICE = Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices")
LLM_INFERENCE_SERVICE = Kind("serving.kserve.io/v1alpha2", "LLMInferenceService", "llminferenceservices")
SERVING_RUNTIME = Kind("serving.kserve.io/v1alpha1", "ServingRuntime", "servingruntimes")
POD = Kind("v1", "Pod", "pods")
EVENT = Kind("v1", "Event", "events")
SERVICES = (INFERENCE_SERVICE, LLM_INFERENCE_SERVICE)


@dataclass(frozen=True)
class Listed:
    """What a list found, and the version from which a watch goes on."""

    items: tuple[Object, ...]
    resource_version: str


@dataclass(frozen=True)
class Change:
    """One event of a watch: `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`, and the object."""

    what: str
    object: Object


class Expired(Exception):
    """The version to watch from is too old for the server (410): list again."""


class Watching:
    """An open watch: iterate over its changes; `close` from another thread ends that."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response
        self._closed = False

    def __iter__(self) -> Iterator[Change]:
        """The changes until the server ends the watch, the connection breaks, or `close`.

        Raises:
            Expired: The watch began too long ago.
        """
        from urllib3.exceptions import HTTPError

        rest = b""
        try:
            for part in self._response.stream(amt=None):
                *lines, rest = (rest + part).split(b"\n")
                yield from (_change(line) for line in lines if line)
        except (HTTPError, OSError, ValueError):
            pass  # the connection broke, or `close` broke it; whoever watches goes on from the last version
        finally:
            self._response.release_conn()

    def close(self) -> None:
        """End the watch, whichever thread waits for it."""
        if not self._closed:
            self._closed = True
            with suppress(OSError, ValueError, RuntimeError):  # it ended by itself meanwhile
                self._response.shutdown()


class Cluster:
    """A connection to one namespace of a cluster.

    Args:
        api: The official client's connection.
        namespace: Namespace of all that is namespaced.
        sleep: How to wait before a call is repeated.
    """

    def __init__(self, api: ApiClient, namespace: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.namespace = namespace
        self._api = api
        self._sleep = sleep

    @classmethod
    def connect(
        cls, kubeconfig: Path | None = None, *, context: str | None = None, namespace: str | None = None
    ) -> Self:
        """Connect with a kubeconfig, or as the pod's service account where there is none.

        Args:
            kubeconfig: File; None for KUBECONFIG, then the pod's own account, then `~/.kube/config`.
            context: Context of the kubeconfig; None for its current one.
            namespace: None for the context's or the pod's own, else `default`.

        Raises:
            Unavailable: The Kubernetes client is not installed, or nothing says where a cluster is.
            UsageError: The kubeconfig cannot be read or lacks the context.
        """
        try:
            from kubernetes import client, config
        except ImportError:
            raise Unavailable(
                "the Kubernetes client is not installed", remedy="Run `pip install 'm4rag[cluster]'`."
            ) from None

        named = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG")
        configuration = client.Configuration()
        try:
            if named is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config(client_configuration=configuration)
                found = _text(ACCOUNT / "namespace")
            else:
                named = named or str(Path.home() / ".kube" / "config")
                # Not persisted: a refreshed token would be written into a file that other processes read.
                config.load_kube_config(
                    named, context=context, client_configuration=configuration, persist_config=False
                )
                contexts, current = config.list_kube_config_contexts(named)
                chosen = next((one for one in contexts if one["name"] == context), current)
                found = chosen["context"].get("namespace")
        except config.ConfigException as error:
            where = named or str(ACCOUNT)
            if named is not None and not Path(named.split(os.pathsep)[0]).exists():
                raise Unavailable(
                    "no cluster is configured", where=where, remedy="Name a kubeconfig: --kubeconfig or KUBECONFIG."
                ) from None
            raise UsageError(str(error), where=where, remedy="Correct the kubeconfig or name its context.") from None
        return cls(client.ApiClient(configuration), namespace or found or "default")

    @property
    def url(self) -> str:
        """The API server's address."""
        return str(self._api.configuration.host)

    def apply(self, manifest: Object, *, dry_run: bool = False) -> Object:
        """Create an object or bring it to this state (server-side apply, strict about unknown fields).

        Args:
            manifest: The fields that are ours, `apiVersion`, `kind` and `metadata.name` among them.
            dry_run: Let the server check everything and write nothing.

        Returns:
            The object as the server has it now.

        Raises:
            BadData: The server refuses a field, or does not know it; names the field. Nothing was written.
            CheckFailed: Another manager owns a field; names both.
            Unavailable: The account may not do it (names verb, resource and account), or the server is gone.
        """
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        rehearsed = self._apply(manifest, {**query, "dryRun": "All"})
        # Servers before 1.25 ignore fieldValidation and drop what they do not know.
        if dropped := pruned(manifest, rehearsed):
            raise BadData(
                f"the cluster's {manifest['kind']} has no field {', '.join(dropped)}",
                where=f"{manifest['kind']} {manifest['metadata']['name']}",
                remedy="Upgrade KServe's CRDs or leave the field out; `m4rag deploy preflight` says what there is.",
            )
        return rehearsed if dry_run else self._apply(manifest, query)

    def _apply(self, manifest: Object, query: Mapping[str, str]) -> Object:
        kind = kind_of(manifest)
        path = self._path(kind, manifest["metadata"]["name"])
        try:
            return self._json("PATCH", path, kind, query, manifest, content="application/apply-patch+yaml")
        except Unexplained:
            # What an account lacks is `create`: an apply that would need it is refused without a word. A create is not.
            self._json("POST", self._path(kind), kind, {"dryRun": "All"}, manifest)
            raise

    def get(self, kind: Kind, name: str) -> Object | None:
        """The object of that name, None if there is none.

        Raises:
            Unavailable: The account may not, or the server is gone.
        """
        try:
            return self._json("GET", self._path(kind, name), kind)
        except NotFound:
            return None

    def list(
        self, kind: Kind, *, labels: str = "", fields: str = "", everywhere: bool = False, clusterwide: bool = False
    ) -> Listed:
        """All objects of a kind; none of a kind that the cluster does not have.

        Args:
            kind: What to list.
            labels: Label selector.
            fields: Field selector.
            everywhere: In all namespaces.
            clusterwide: The kind has no namespaces.

        Raises:
            Unavailable: The account may not, or the server is gone.
        """
        path = f"{kind.root}/{kind.plural}" if everywhere or clusterwide else self._path(kind)
        try:
            answer = self._json("GET", path, kind, _selectors(labels, fields))
        except NotFound:
            return Listed((), "")
        said = {"apiVersion": kind.api_version, "kind": kind.name}  # which items of a list do not say
        items = tuple({**said, **item} for item in answer.get("items") or ())
        return Listed(items, str(answer["metadata"].get("resourceVersion", "")))

    def watch(
        self, kind: Kind, resource_version: str, *, labels: str = "", fields: str = "", seconds: int = 300
    ) -> Watching:
        """What changes after a version.

        Args:
            kind: What to watch.
            resource_version: From `list`, or of the last object seen.
            labels: Label selector.
            fields: Field selector.
            seconds: How long the server keeps the watch open.

        Raises:
            Expired: The version is too old.
            Unavailable: The account may not, or the server is gone.
        """
        query = {
            **_selectors(labels, fields),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
        }
        try:
            return Watching(self._request("GET", self._path(kind), kind, query, timeout_s=seconds + TIMEOUT_S))
        except Gone:
            raise Expired from None

    def delete(self, kind: Kind, name: str) -> bool:
        """Delete an object; False if there is none. A service stays until all that it owns is gone (foreground).

        Raises:
            Unavailable: The account may not, or the server is gone.
        """
        try:
            propagation = "Foreground" if kind in SERVICES else "Background"
            self._json("DELETE", self._path(kind, name), kind, {"propagationPolicy": propagation})
        except NotFound:
            return False
        return True

    def log(self, pod: str, container: str, *, lines: int = 50, previous: bool = False) -> str:
        """The last lines that a container wrote, "" where there are none (yet, or any more).

        Args:
            pod: The pod's name.
            container: The container's, init containers included.
            lines: How many.
            previous: Of the run before the last restart.

        Raises:
            Unavailable: The account may not, or the server is gone.
        """
        logs = Kind(POD.api_version, "Pod", "pods/log")
        query = {"container": container, "tailLines": str(lines), "previous": str(previous).lower()}
        try:
            response = self._request("GET", f"{self._path(POD, pod)}/log", logs, query)
        except (NotFound, BadData):  # not started yet, or its log was rotated away
            return ""
        return response.data.decode(errors="replace")

    def allowed(self, verb: str, group: str, resource: str) -> bool:
        """Whether this account may do that in this namespace (SelfSubjectAccessReview).

        Args:
            verb: E.g. `create`.
            group: API group, "" for the core group.
            resource: E.g. `pods` or `pods/log`.
        """
        name, _, part = resource.partition("/")
        asked = {"namespace": self.namespace, "verb": verb, "group": group, "resource": name, "subresource": part}
        kind = Kind("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews")
        review = {"apiVersion": kind.api_version, "kind": kind.name, "spec": {"resourceAttributes": asked}}
        answer = self._json("POST", f"{kind.root}/{kind.plural}", kind, body=review)
        return bool(answer["status"].get("allowed"))

    def served(self, api_version: str) -> frozenset[str] | None:
        """Plural names of the kinds that the server has in a group and version; None if it lacks the version."""
        kind = Kind(api_version, "APIResourceList", "")
        try:
            answer = self._json("GET", kind.root, kind)
        except NotFound:
            return None
        return frozenset(resource["name"] for resource in answer["resources"])

    def raw(self, path: str) -> Object:
        """What the server answers to a GET of a path outside the kinds above, such as `/version`.

        Raises:
            Unavailable: The account may not, there is no such path, or the server is gone.
        """
        return self._json("GET", path, Kind("", path, path))

    def _path(self, kind: Kind, name: str | None = None) -> str:
        collection = f"{kind.root}/namespaces/{quote(self.namespace, safe='')}/{kind.plural}"
        return collection if name is None else f"{collection}/{quote(name, safe='')}"

    def _json(
        self,
        method: str,
        path: str,
        kind: Kind,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        content: str = "application/json",
    ) -> Object:
        found: Object = json.loads(self._request(method, path, kind, query, body, content=content).data)
        return found

    def _request(
        self,
        method: str,
        path: str,
        kind: Kind,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        content: str = "application/json",
        timeout_s: float = TIMEOUT_S,
    ) -> HTTPResponse:
        """One request, repeated while the server asks for that."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        for attempt in range(ATTEMPTS):
            if attempt:
                self._sleep(BACKOFF_S * 2 ** (attempt - 1))
            try:
                response: HTTPResponse = self._api.call_api(
                    path,
                    method,
                    query_params=list((query or {}).items()),
                    header_params={"Accept": "application/json", "Content-Type": content},
                    body=body,
                    auth_settings=["BearerToken"],
                    _preload_content=False,
                    _return_http_data_only=True,
                    _request_timeout=(TIMEOUT_S, timeout_s),
                )
            except ApiException as error:
                problem = refusal(error, _named(kind, path), self.url)
                if not isinstance(problem, Again) or attempt == ATTEMPTS - 1:
                    raise problem from None
            except HTTPError as error:
                raise Unavailable(
                    f"no Kubernetes API server answers ({_reason(error)})",
                    where=self.url,
                    remedy="Check the kubeconfig, its context and the network.",
                ) from None
            else:
                return response
        raise AssertionError  # the last attempt returned or raised


def kind_of(manifest: Object) -> Kind:
    """The kind of a manifest, in its own version.

    Raises:
        BadData: Not one of the kinds that m4rag deploys.
    """
    for kind in (*SERVICES, SERVING_RUNTIME):
        if kind.name == manifest["kind"] and kind.group == str(manifest["apiVersion"]).rpartition("/")[0]:
            return Kind(str(manifest["apiVersion"]), kind.name, kind.plural)
    raise BadData(f"m4rag does not deploy a {manifest['kind']} of {manifest['apiVersion']}")


def pruned(sent: Any, kept: Any, path: str = "") -> list[str]:
    """Fields that were sent and are not in the server's answer, as dotted paths. Items of lists are found by name."""
    if isinstance(sent, Mapping):
        if not isinstance(kept, Mapping):
            return [path]
        missing: list[str] = []
        for key, value in sent.items():
            if key not in kept:
                missing += [] if value in (None, {}, []) else [f"{path}.{key}"]
            else:
                missing += pruned(value, kept[key], f"{path}.{key}")
        return missing
    if isinstance(sent, list):
        found = kept if isinstance(kept, list) else []
        return [
            field
            for place, item in enumerate(sent)
            for field in pruned(item, _same(item, place, found), f"{path}[{place}]")
        ]
    return []


def _same(item: Any, place: int, found: list[Any]) -> Any:
    """The item of a list that is meant: the one of the same name, else the one in the same place."""
    if isinstance(item, Mapping) and "name" in item:
        return next(
            (other for other in found if isinstance(other, Mapping) and other.get("name") == item["name"]), None
        )
    return found[place] if place < len(found) else None


def _named(kind: Kind, path: str) -> str:
    """What a request is about: an object, or a kind where the path ends with it."""
    last = path.rpartition("/")[2]
    return kind.plural if last == kind.plural else f"{kind.name} {last}"


def _selectors(labels: str, fields: str) -> dict[str, str]:
    chosen = {"labelSelector": labels, "fieldSelector": fields}
    return {name: selector for name, selector in chosen.items() if selector}


def _change(line: bytes) -> Change:
    event = json.loads(line)
    if event["type"] == "ERROR":
        if event["object"].get("code") == HTTP_GONE:
            raise Expired
        raise Unavailable(str(event["object"].get("message")), remedy="The API server ended the watch; try again.")
    return Change(event["type"], event["object"])


def _reason(error: Exception) -> str:
    """The innermost reason of a connection error, in one line."""
    reason = getattr(error, "reason", None)
    return _reason(reason) if isinstance(reason, Exception) else " ".join(str(error).split())[:200]


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
