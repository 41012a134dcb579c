"""The routes of the endpoint, and what happens around every request: admission, errors, metrics, one log line."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from prometheus_client import generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from m4rag import __version__
from m4rag.settings import Settings
from serving.rag.admission import Admission
from serving.rag.answering import COMPLETIONS, Preparation, Prepared, too_long
from serving.rag.chat_request import ChatRequest, read_chat_request
from serving.rag.configuration import Configuration
from serving.rag.measures import Measures
from serving.rag.model import Model
from serving.rag.problems import Problem, invalid
from serving.rag.replies import CallerGone, released, send_json, send_stream, while_connected
from serving.rag.rules import Rules, RulesFile

BODY_S = 60.0
"""Seconds in which a request's body has to arrive."""

REQUEST_ID = re.compile(r"[\w.-]{1,128}")
PREFIXES = ("", "/openai")
"""KServe's clients look under `/openai/v1`, everybody else under `/v1`."""

log = logging.getLogger(__name__)
requests_log = logging.getLogger("m4rag.requests")


class Endpoint:
    """Everything that a request needs, shared by all of them.

    Args:
        configuration: The endpoint's.
        settings: Where Milvus and the encoder are.
    """

    def __init__(self, configuration: Configuration, settings: Settings) -> None:
        self.configuration = configuration
        self.measures = Measures()
        self.model = Model(configuration)
        self.admission = Admission(configuration.max_in_flight, configuration.max_waiting, configuration.max_wait_s)
        self.preparation = Preparation(self.model, self.measures)
        self.rules_file: RulesFile | None = None
        if configuration.retrieval == "policy" and configuration.policy is not None:
            self.rules_file = RulesFile(configuration.policy, configuration, settings, self.measures)

    @property
    def rules(self) -> Rules | None:
        """The rules in force, None where retrieval is off."""
        return self.rules_file.current if self.rules_file else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connect, read the policy, and watch it, until the end of the block.

        Raises:
            M4ragError: The policy can't be applied.
            Problem: The model does not answer.
        """
        async with self.model, AsyncExitStack() as stack:
            if self.rules_file is not None:
                name = await self.model.name()
                await self.rules_file.load(name)
                stack.callback(self.rules_file.close)
                watching = asyncio.create_task(self.rules_file.watch(name))
                stack.callback(watching.cancel)
            yield


def application(endpoint: Endpoint) -> Starlette:
    """The routes of an endpoint that is `running`."""
    routes = [
        Route("/v2/health/live", _live),
        Route("/v2/health/ready", _Ready(endpoint), methods=["GET"]),
        Route("/metrics", _Metrics(endpoint), methods=["GET"]),
    ]
    for prefix in PREFIXES:
        routes.append(Route(f"{prefix}/v1{COMPLETIONS}", _Chat(endpoint), methods=["POST"]))
        routes.append(Route(f"{prefix}/v1/models", _Models(endpoint), methods=["GET"]))
    return Starlette(routes=routes, exception_handlers={404: _no_route, 405: _no_route})


async def _live(request: Request) -> Response:
    del request
    return JSONResponse({"live": True})


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    problem = Problem(status, f"There is no {request.method} {request.url.path}.", code="not_found")
    return JSONResponse(problem.body, status_code=status)


class _Ready:
    """Whether the model can be asked. A failed index does not make it unready: it answers without context then."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        well = await self._endpoint.model.healthy()
        rules = self._endpoint.rules
        body = {
            "ready": well,
            "model": well,
            "policy": rules.policy.digest if rules else None,
            "index": not rules.retriever.breaker.open if rules and rules.retriever else None,
            "version": __version__,
        }
        await JSONResponse(body, status_code=200 if well else 503)(scope, receive, send)


class _Metrics:
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = generate_latest(self._endpoint.measures.registry)
        await Response(text, media_type="text/plain; version=0.0.4")(scope, receive, send)


class _Line:
    """What the log says of one request: no words of it, no image."""

    def __init__(self, scope: Scope, route: str) -> None:
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        self.request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.started = time.perf_counter()
        self.route = route
        self.status = 500
        self.account: Prepared | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"x-request-id": self.request_id}

    def written(self) -> str:
        """One JSON object."""
        line: dict[str, Any] = {
            "request": self.request_id,
            "route": self.route,
            "status": self.status,
            "seconds": round(time.perf_counter() - self.started, 4),
        }
        if self.account is not None:
            account = self.account.account
            line |= {"decision": account.decision, "index": account.index, "policy": account.policy}
            line |= {"timings_ms": account.timings_ms}
            if account.decision == "degraded":
                line["reason"] = account.reason
        return json.dumps(line)


class _Guarded:
    """A route whose problems become answers, and that is counted and logged."""

    route = ""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def answer(self, receive: Receive, send: Send, line: _Line) -> None:
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        line = _Line(scope, self.route)
        measures = self.endpoint.measures
        measures.in_flight.inc()
        try:
            await self.answer(receive, send, line)
        except CallerGone:
            line.status = 499
        except Problem as problem:
            line.status = problem.status
            await send_json(send, problem.status, problem.body, {**problem.headers, **line.headers})
        except asyncio.CancelledError:
            line.status = 499
            raise
        except Exception:
            log.exception("request %s failed", line.request_id)
            failure = Problem(500, "The endpoint failed; its log says why.", code="internal")
            await send_json(send, 500, failure.body, line.headers)
        finally:
            measures.in_flight.dec()
            measures.requests.labels(self.route, str(line.status)).inc()
            if line.account is not None:
                measures.decisions.labels(line.account.account.decision).inc()
            requests_log.info("%s", line.written())


class _Models(_Guarded):
    route = "models"

    async def answer(self, receive: Receive, send: Send, line: _Line) -> None:
        listed = await while_connected(receive, self.endpoint.model.get("/models"))
        line.status = 200
        await send_json(send, 200, listed, line.headers)


class _Chat(_Guarded):
    route = "chat"

    async def answer(self, receive: Receive, send: Send, line: _Line) -> None:
        configuration = self.endpoint.configuration
        body = await _body(receive, configuration.max_body_bytes)
        request = read_chat_request(body, max_images=configuration.max_images, max_tokens=configuration.max_tokens)
        async with AsyncExitStack() as stack:
            await while_connected(receive, stack.enter_async_context(self.endpoint.admission.turn()))
            held = stack.pop_all()
        await released(held, self._answer(request, receive, send, line))

    async def _answer(self, request: ChatRequest, receive: Receive, send: Send, line: _Line) -> None:
        request = replace(request, fields={**request.fields, "model": await self._model_name(request)})
        prepared = await while_connected(receive, self.endpoint.preparation.prepare(request, self.endpoint.rules))
        line.account = prepared
        if request.stream:
            await self._stream(prepared, receive, send, line)
            return
        with self.endpoint.measures.stage("model", prepared.account.timings_ms):
            prepared, made = await while_connected(receive, self._whole(prepared))
        line.account, line.status = prepared, 200
        made["m4rag"] = prepared.account.payload
        await send_json(send, 200, made, {**line.headers, **prepared.account.headers})

    async def _model_name(self, request: ChatRequest) -> str:
        served = await self.endpoint.model.name()
        wanted = request.fields.get("model") or served
        if wanted != served:
            message = f"There is no model {str(wanted)[:100]!r}; served is {served!r}."
            raise Problem(404, message, code="model_not_found", param="model")
        return served

    async def _whole(self, prepared: Prepared) -> tuple[Prepared, dict[str, Any]]:
        while True:
            try:
                return prepared, await self.endpoint.model.answer(COMPLETIONS, prepared.fields)
            except Problem as problem:
                if not (prepared.passages and too_long(problem)):
                    raise
                prepared = prepared.shorter()

    async def _stream(self, prepared: Prepared, receive: Receive, send: Send, line: _Line) -> None:
        prepared, source = await while_connected(receive, self._begun(prepared))
        line.account, line.status = prepared, 200
        first_byte = self.endpoint.measures.first_byte
        headers = {**line.headers, **prepared.account.headers}
        sending = send_stream(
            send,
            source,
            prepared.account.payload,
            headers,
            lambda: first_byte.observe(time.perf_counter() - line.started),
        )
        try:
            await while_connected(receive, sending)
        finally:
            await source.aclose()

    async def _begun(self, prepared: Prepared) -> tuple[Prepared, AsyncGenerator[bytes]]:
        """The stream of an answer whose first byte is on its way: so much of it can still fail with a status."""
        while True:
            source = self.endpoint.model.stream(COMPLETIONS, prepared.fields)
            try:
                await anext(source)
                return prepared, source
            except Problem as problem:
                if not (prepared.passages and too_long(problem)):
                    raise
                prepared = prepared.shorter()


async def _body(receive: Receive, most: int) -> bytes:
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise CallerGone
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise Problem(413, f"The body has more than {most} bytes.", code="body_too_large")
                more = message.get("more_body", False)
    except TimeoutError:
        raise Problem(408, f"The body did not arrive within {BODY_S:g} s.", code="slow_body") from None
    if not any(parts):
        raise invalid("The body is empty.", "messages")
    return b"".join(parts)
