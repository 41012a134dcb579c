"""The client against a server that misbehaves in every way a real one can, over real HTTP on the loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from m4rag.errors import M4ragError, Unavailable, UsageError
from m4rag.vlm import client as client_module
from m4rag.vlm.client import Completion, ContextTooLong, RequestRefused, VlmClient, error_message, retry_after
from m4rag.vlm.images import read_image

Reply = Callable[[web.Request], Awaitable[web.Response]]

MODELS = {"data": [{"id": "m", "root": "/models/m", "max_model_len": 4096, "owned_by": "someone"}]}
GOOD = {
    "choices": [{"message": {"content": '{"answer": 1}'}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 5},
}
PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde"
    b"\x00\x00\x00\x0cIDATx\x9cc```\x00\x00\x00\x04\x00\x01\xf6\x178U\x00\x00\x00\x00IEND\xaeB`\x82"
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "BACKOFF_S", 0.001)


def with_server(
    replies: list[Any], ask: Callable[[VlmClient], Awaitable[Any]], **options: Any
) -> tuple[Any, list[dict[str, Any]]]:
    """What `ask` returns or raises against a server that gives these replies in turn, the last one for ever."""

    async def run() -> tuple[Any, list[dict[str, Any]]]:
        requests: list[dict[str, Any]] = []

        async def models(request: web.Request) -> web.Response:
            return web.json_response(MODELS)

        async def completions(request: web.Request) -> web.StreamResponse:
            requests.append({"headers": dict(request.headers), "body": await request.json()})
            reply = replies[min(len(requests), len(replies)) - 1]
            if callable(reply):
                return await reply(request)
            if isinstance(reply, web.Response):
                body = reply.text if isinstance(reply.text, str) else ""
                return web.Response(status=reply.status, text=body, headers=reply.headers)
            return web.json_response(reply)

        app = web.Application()
        app.router.add_get("/v1/models", models)
        app.router.add_post("/v1/chat/completions", completions)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            async with VlmClient(f"http://127.0.0.1:{port}/v1", **options) as client:
                try:
                    return await ask(client), requests
                except M4ragError as error:
                    return error, requests
        finally:
            await runner.cleanup()

    return asyncio.run(run())


async def generate(client: VlmClient) -> Completion:
    return await client.generate("Which?", max_tokens=64)


def error(status: int, message: str = "because", **headers: str) -> web.Response:
    body = f'{{"error": {{"message": "{message}", "type": "BadRequestError", "code": {status}}}}}'
    return web.Response(status=status, text=body, headers=headers)


def test_m4rag_fault_30_image_goes_before_text_in_one_user_message() -> None:
    image = read_image(PNG)
    schema = {"type": "object"}

    async def ask(client: VlmClient) -> Completion:
        return await client.generate("Which?", image=image, schema=schema, max_tokens=64, seed=7)

    completion, requests = with_server([GOOD], ask, api_key="secret")
    body = requests[0]["body"]
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": image.data_url}},
                {"type": "text", "text": "Which?"},
            ],
        }
    ]
    assert body["response_format"]["json_schema"]["schema"] == schema
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("m", 64, 0.0, 7)
    assert requests[0]["headers"]["Authorization"] == "Bearer secret"
    assert (completion.text, completion.finish_reason) == ('{"answer": 1}', "stop")
    assert (completion.prompt_tokens, completion.completion_tokens) == (11, 5)
    assert completion.latency_ms > 0


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_m4rag_fault_32_a_busy_server_is_asked_again(status: int) -> None:
    completion, requests = with_server([error(status), error(status), GOOD], generate)
    assert completion.text == '{"answer": 1}'
    assert len(requests) == 3


def test_a_connection_that_breaks_is_opened_again() -> None:
    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        raise asyncio.CancelledError

    completion, requests = with_server([hang_up, GOOD], generate)
    assert completion.text == '{"answer": 1}'
    assert len(requests) == 2


def test_m4rag_fault_05_a_server_that_stays_busy_is_given_up_with_its_reason() -> None:
    failure, requests = with_server([error(503, "overloaded")], generate)
    assert isinstance(failure, Unavailable)
    assert "HTTP 503: overloaded" in str(failure)
    assert len(requests) == client_module.ATTEMPTS


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_told_from_a_server_that_is_gone(status: int) -> None:
    failure, requests = with_server([error(status, "At most 1 image(s) may be provided")], generate)
    assert type(failure) is RequestRefused
    assert str(failure) == "At most 1 image(s) may be provided"  # and no address: it is stored as the answer
    assert len(requests) == 1


def test_m4rag_fault_03_a_prompt_that_does_not_fit_is_a_refusal_of_its_own() -> None:
    message = "This model's maximum context length is 4096 tokens. However, your request has 9000 input tokens."
    failure, _ = with_server([error(400, message)], generate)
    assert isinstance(failure, ContextTooLong)
    assert isinstance(failure, RequestRefused)


@pytest.mark.parametrize(("status", "remedy"), [(401, "M4RAG_VLM_API_KEY"), (403, "M4RAG_VLM_API_KEY"), (404, "/v1")])
def test_denied_access_ends_the_run_at_once(status: int, remedy: str) -> None:
    failure, requests = with_server([error(status)], generate)
    assert isinstance(failure, Unavailable)
    assert remedy in str(failure)
    assert len(requests) == 1


def test_an_internal_error_is_not_retried() -> None:
    failure, requests = with_server([error(500, "EngineCore encountered an issue")], generate)
    assert isinstance(failure, Unavailable)
    assert "EngineCore encountered an issue" in str(failure)
    assert len(requests) == 1


def test_a_slow_server_is_given_up_once() -> None:
    async def never(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.json_response(GOOD)

    failure, requests = with_server([never], generate, timeout_s=0.2)
    assert isinstance(failure, Unavailable)
    assert "no answer within 0.2 s" in str(failure)
    assert "M4RAG_VLM_TIMEOUT_S" in str(failure)
    assert len(requests) == 1


@pytest.mark.parametrize(
    "reply", [web.Response(text="<html>hello</html>"), web.Response(text="[1]"), {"choices": []}, {"detail": "x"}]
)
def test_another_kind_of_server_is_recognised(reply: Any) -> None:
    failure, _ = with_server([reply], generate)
    assert isinstance(failure, Unavailable)
    assert "not that of an OpenAI-compatible server" in str(failure)


def test_a_refusal_in_its_own_field_is_kept() -> None:
    reply = {"choices": [{"message": {"content": None, "refusal": "I will not."}, "finish_reason": "stop"}]}
    completion, _ = with_server([reply], generate)
    assert (completion.text, completion.finish_reason) == ("I will not.", "refusal")
    assert completion.prompt_tokens == 0


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    now, most = 0, 0

    async def slow(request: web.Request) -> web.Response:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.02)
        now -= 1
        return web.json_response(GOOD)

    async def many(client: VlmClient) -> list[Completion]:
        return list(await asyncio.gather(*(generate(client) for _ in range(12))))

    completions, _ = with_server([slow], many, concurrency=4)
    assert len(completions) == 12
    assert most == 4


def test_the_model_is_asked_for_once() -> None:
    async def ask(client: VlmClient) -> Any:
        first, second = await asyncio.gather(client.model(), client.model())
        assert first is second
        return first

    served, _ = with_server([GOOD], ask)
    assert (served.name, served.root, served.max_model_len, served.engine) == ("m", "/models/m", 4096, "someone")


def test_a_server_that_is_not_there_is_named_with_a_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"

        async def run() -> None:
            async with VlmClient(url) as client:
                await generate(client)

        with pytest.raises(Unavailable) as failure:
            asyncio.run(run())
    assert url in str(failure.value)
    assert "m4rag vlm status" in str(failure.value)


def test_a_url_that_is_none_is_a_usage_error() -> None:
    async def run() -> None:
        async with VlmClient("nonsense") as client:
            await generate(client)

    with pytest.raises(UsageError, match="M4RAG_VLM_URL"):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "too long", "code": 400}}', "too long"),
        ('{"error": "no such model"}', "no such model"),
        ('{"detail": "Not Found"}', "Not Found"),
        ("upstream\n  connect error", "upstream connect error"),
        ("", "no reason given"),
        ('"x"', "x"),
        ("y" * 600, "y" * 499 + "…"),
    ],
)
def test_error_bodies_become_one_line(body: str, message: str) -> None:
    assert error_message(body) == message


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("Wed, 21 Oct 2026 07:28:10 GMT", 10.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
        ("x", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, datetime(2026, 10, 21, 7, 28, tzinfo=UTC)) == seconds
