"""A Kubeflow Pipelines API server on this machine: the v2beta1 REST API, with what its OpenAPI allows and no more.

Bodies, queries and filters are held to the models that are generated from the published OpenAPI document: a field that
it does not have, or a value of another type, is HTTP 400 (the real server drops such fields). Answers have the names
and types of the real one: proto names, 64-bit numbers as text, `{"code", "message", "details"}` for errors.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import kfp_server_api
import yaml
from aiohttp import web
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

CREATED = "2026-11-22T10:00:00Z"
NATIVE = {"str": str, "bool": bool, "int": int, "float": (int, float), "datetime": str, "object": object}

Reply = Callable[[], web.Response]


class Rejected(Exception):
    """A request that the API does not allow."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Pipelines:
    """What the server holds, how it behaves, and what it was asked.

    Attributes:
        tag: Its release.
        multi_user: Whether everything belongs to a namespace.
        tokens: Bearer tokens that it takes; None takes requests without one.
        forbidden: Namespaces that the user may not use.
        script: What a run reports, one entry for each time it is asked for; the last one stays.
        replies: Answers to give first: (method, part of the path, answer).
        lost: How many creations of runs are carried out but answered with HTTP 502.
        requests: Method and path of each request, in order.
        headers: `Authorization` of each request.
        bodies: JSON bodies by path, in order.
    """

    tag: str = "2.17.0"
    multi_user: bool = False
    tokens: set[str] | None = None
    forbidden: set[str] = field(default_factory=set)
    script: list[dict[str, Any]] = field(default_factory=lambda: [{"state": "SUCCEEDED"}])
    replies: deque[tuple[str, str, Reply]] = field(default_factory=deque)
    lost: int = 0
    url: str = ""
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    bodies: list[tuple[str, Any]] = field(default_factory=list)

    def asked(self, method: str, path: str) -> int:
        """How many requests had this method and this path, without the query."""
        return self.requests.count((method, path))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        self.headers.append(request.headers.get("Authorization", ""))
        try:
            for number, (method, part, reply) in enumerate(self.replies):
                if method == request.method and part in request.path:
                    del self.replies[number]
                    return reply()
            self._admit(request)
            return web.json_response(await self._route(request))
        except Rejected as rejected:
            return error(rejected.status, str(rejected))()

    def _admit(self, request: web.Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if self.tokens is not None and (scheme != "Bearer" or token not in self.tokens):
            raise Rejected(401, "Unauthenticated: Request header error: there is no user identity header")

    async def _route(self, request: web.Request) -> Any:
        path = request.path.removeprefix("/apis/v2beta1")
        for method, pattern, handler, query in (
            ("GET", r"/healthz", self._health, ()),
            ("GET", r"/experiments", self._list_experiments, ("namespace", "filter", "page_token", "page_size")),
            ("POST", r"/experiments", self._create_experiment, ()),
            ("GET", r"/pipelines", self._list_pipelines, ("namespace", "filter", "page_token", "page_size")),
            ("POST", r"/pipelines", self._create_pipeline, ()),
            ("GET", r"/pipelines/([^/]+)/versions", self._list_versions, ("filter", "page_token", "page_size")),
            ("POST", r"/pipelines/upload_version", self._upload, ("name", "pipelineid", "display_name", "tags")),
            ("GET", r"/runs", self._list_runs, ("namespace", "experiment_id", "filter", "page_token", "page_size")),
            ("POST", r"/runs", self._create_run, ("experiment_id",)),
            ("GET", r"/runs/([^/:]+)", self._get_run, ()),
            ("POST", r"/runs/([^/:]+):terminate", self._terminate, ()),
        ):
            match = re.fullmatch(pattern, path)
            if match and method == request.method:
                if unknown := set(request.query) - set(query):
                    raise Rejected(400, f"unknown query parameter {sorted(unknown)}")
                return await handler(request, *match.groups())
        raise Rejected(404, f"Not Found: {request.method} {request.path}")

    async def _health(self, request: web.Request) -> Any:
        return {
            "commit_sha": "0" * 40,
            "tag_name": self.tag,
            "multi_user": self.multi_user,
            "pipeline_store": "database",
        }

    async def _list_experiments(self, request: web.Request) -> Any:
        return {"experiments": self._listed(request, self.experiments)}

    async def _create_experiment(self, request: web.Request) -> Any:
        body = await self._body(request, "V2beta1Experiment")
        self._namespaced(body.get("namespace", ""))
        self._unique(self.experiments, body["display_name"], body.get("namespace", ""))
        return self._added(self.experiments, "experiment_id", {**body, "created_at": CREATED})

    async def _list_pipelines(self, request: web.Request) -> Any:
        return {"pipelines": self._listed(request, self.pipelines)}

    async def _create_pipeline(self, request: web.Request) -> Any:
        body = await self._body(request, "V2beta1Pipeline")
        self._namespaced(body.get("namespace", ""))
        self._unique(self.pipelines, body["name"], body.get("namespace", ""))
        return self._added(self.pipelines, "pipeline_id", {**body, "created_at": CREATED})

    async def _list_versions(self, request: web.Request, pipeline: str) -> Any:
        _by_id(self.pipelines, "pipeline_id", pipeline)
        mine = [version for version in self.versions if version["pipeline_id"] == pipeline]
        return {"pipeline_versions": self._listed(request, mine)}

    async def _upload(self, request: web.Request) -> Any:
        pipeline = _by_id(self.pipelines, "pipeline_id", request.query["pipelineid"])
        part = (await request.post())["uploadfile"]
        assert isinstance(part, web.FileField)
        documents = list(yaml.safe_load_all(part.file.read()))
        json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
        if len(documents) > 1:
            json_format.ParseDict(documents[1], pipeline_spec_pb2.PlatformSpec())
        name = request.query["name"]
        mine = [version for version in self.versions if version["pipeline_id"] == pipeline["pipeline_id"]]
        self._unique(mine, name, "")
        version = {
            "pipeline_id": pipeline["pipeline_id"],
            "name": name,
            "display_name": name,
            "created_at": CREATED,
            "pipeline_spec": {"pipeline_spec": documents[0], "platform_spec": (documents[1:] or [{}])[0]},
        }
        return self._added(self.versions, "pipeline_version_id", version)

    async def _list_runs(self, request: web.Request) -> Any:
        return {"runs": self._listed(request, self.runs)}

    async def _create_run(self, request: web.Request) -> Any:
        body = await self._body(request, "V2beta1Run")
        experiment = _by_id(self.experiments, "experiment_id", body["experiment_id"])
        self._namespaced(experiment.get("namespace", ""))
        reference = body["pipeline_version_reference"]
        version = _by_id(self.versions, "pipeline_version_id", reference["pipeline_version_id"])
        inputs = version["pipeline_spec"]["pipeline_spec"]["root"].get("inputDefinitions", {}).get("parameters", {})
        for name, value in body["runtime_config"].get("parameters", {}).items():
            if name not in inputs:
                raise Rejected(400, f"Invalid input error: unknown parameter {name}")
            _check_parameter(name, value, inputs[name]["parameterType"])
        made = self._added(self.runs, "run_id", {**body, "state": "PENDING", "created_at": CREATED})
        if self.lost:
            self.lost -= 1
            return _raise(Rejected(502, "upstream connect error or disconnect/reset before headers"))
        return made

    async def _get_run(self, request: web.Request, key: str) -> Any:
        run = _by_id(self.runs, "run_id", key)
        if run.get("canceling"):
            state: dict[str, Any] = {"state": "CANCELED"}
        else:
            state = self.script[0] if len(self.script) == 1 else self.script.pop(0)
        tasks = [
            {**task, "run_id": key, "create_time": CREATED, "execution_id": "7"} for task in state.get("tasks", [])
        ]
        report = {name: value for name, value in run.items() if name != "canceling"}
        report |= {name: value for name, value in state.items() if name != "tasks"}
        return report | {"run_details": {"task_details": tasks}}

    async def _terminate(self, request: web.Request, key: str) -> Any:
        _by_id(self.runs, "run_id", key)["canceling"] = True
        return {}

    async def _body(self, request: web.Request, model: str) -> Any:
        body = await request.json()
        _check(body, model, model)
        self.bodies.append((request.path, body))
        return body

    def _namespaced(self, namespace: str) -> None:
        if self.multi_user and not namespace:
            raise Rejected(400, "Invalid input error: In multi-user mode, namespace cannot be empty")
        if namespace in self.forbidden:
            raise Rejected(403, f"PermissionDenied: User 'ana' is not authorized with reason: in {namespace}")

    def _listed(self, request: web.Request, resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self._namespaced(request.query.get("namespace", "") if "namespace" in request.query else "-")
        named = json.loads(request.query.get("filter", "{}"))
        _check(named, "V2beta1Filter", "filter")
        for predicate in named.get("predicates", []):
            if predicate["operation"] != "EQUALS" or predicate["key"] != "display_name":
                raise Rejected(400, f"this server filters by display_name only, not {predicate}")
            resources = [one for one in resources if one["display_name"] == predicate["string_value"]]
        for query in ("namespace", "experiment_id"):
            if query in request.query:
                resources = [one for one in resources if one.get(query, request.query[query]) == request.query[query]]
        return resources

    def _unique(self, resources: list[dict[str, Any]], name: str, namespace: str) -> None:
        if any(one["display_name"] == name and one.get("namespace", "") == namespace for one in resources):
            raise Rejected(409, f"Already exist error: {name} already exists")

    def _added(self, resources: list[dict[str, Any]], key: str, resource: dict[str, Any]) -> dict[str, Any]:
        made = {**resource, key: f"{key.removesuffix('_id')}-{len(resources) + 1}"}
        resources.append(made)
        return made


def _by_id(resources: list[dict[str, Any]], key: str, value: str) -> dict[str, Any]:
    for resource in resources:
        if resource[key] == value:
            return resource
    raise Rejected(404, f"Resource not found: {key.removesuffix('_id')} {value} not found")


def _check(value: Any, kind: str, where: str) -> None:
    """Hold JSON to a type of the OpenAPI document."""
    if match := re.fullmatch(r"list\[(.*)\]", kind):
        _expect(isinstance(value, list), where, "a list")
        for item in value:
            _check(item, match[1], where)
    elif match := re.fullmatch(r"dict\(([^,]*), (.*)\)", kind):
        _expect(isinstance(value, dict), where, "an object")
        for name, item in value.items():
            _check(item, match[2], f"{where}.{name}")
    elif kind in NATIVE:
        _expect(isinstance(value, NATIVE[kind]) and not (kind == "int" and isinstance(value, bool)), where, kind)  # type: ignore[arg-type]
    else:
        model = getattr(kfp_server_api.models, kind)
        if hasattr(model, "allowable_values"):
            _expect(value in model.allowable_values, where, f"one of {model.allowable_values}")
            return
        _expect(isinstance(value, dict), where, "an object")
        kinds = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
        for name, item in value.items():
            if name not in kinds:
                raise Rejected(400, f'proto: (line 1:1): unknown field "{name}" in {where}')
            _check(item, kinds[name], f"{where}.{name}")


def _expect(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise Rejected(400, f"proto: invalid value for {where}: expected {what}")


def _check_parameter(name: str, value: Any, kind: str) -> None:
    types: dict[str, Any] = {
        "STRING": str,
        "NUMBER_INTEGER": int,
        "NUMBER_DOUBLE": (int, float),
        "BOOLEAN": bool,
        "LIST": list,
        "STRUCT": dict,
    }
    if not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
        raise Rejected(400, f"Invalid input error: parameter {name} must be {kind}")


def _raise(rejected: Rejected) -> Any:
    raise rejected


def error(status: int, message: str) -> Reply:
    """An error as grpc-gateway writes it."""
    details = [{"@type": "type.googleapis.com/google.rpc.Status", "code": 2, "message": message}]
    return lambda: web.json_response({"code": 2, "message": message, "details": details}, status=status)


def page(status: int = 200, **headers: str) -> Reply:
    """A web page, as a login in front of the server answers."""
    return lambda: web.Response(text="<html>Log in</html>", status=status, headers=headers, content_type="text/html")


@contextmanager
def serving(pipelines: Pipelines, context: ssl.SSLContext | None = None) -> Iterator[Pipelines]:
    """Run the server; `pipelines.url` is its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", pipelines.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
    scheme, name = ("https", "localhost") if context else ("http", "127.0.0.1")
    pipelines.url = f"{scheme}://{name}:{runner.addresses[0][1]}"
    try:
        yield pipelines
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
