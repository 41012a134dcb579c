"""The endpoint as a process: driven by OpenAI's own client, before a scripted model and a real embedded Milvus."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from chat_upstream import NAME, Upstream, said_to, upstream
from content_server import NUMBERED, model_server, preferred
from milvus_fixtures import MilvusServer

from m4rag.bench.benchmark import Request, run
from m4rag.datasets import load_documents
from m4rag.index.build import build_index
from m4rag.manifests import Manifest
from m4rag.policy.fit import fit_run
from m4rag.policy.model import Gate, Policy
from m4rag.progress import silent
from m4rag.schema import Document
from m4rag.settings import Settings
from m4rag.shards import write_folder

PICTURE = Path(__file__).resolve().parents[2] / "m4rag" / "datasets" / "museum_data" / "images" / "bao-0.webp"
DATA_URL = f"data:image/webp;base64,{base64.b64encode(PICTURE.read_bytes()).decode()}"
IMAGE = {"type": "image_url", "image_url": {"url": DATA_URL}}
START_S = 300.0  # an encoder loads torch, on a busy machine


@dataclass
class Served:
    """A running endpoint: its address, the model behind it, its policy file, its process and its log."""

    url: str
    model: Upstream
    policy: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=20.0)

    def ask(self, text: str, **fields: Any) -> Any:
        return self.client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": text}], **fields)

    def post(self, body: Any, path: str = "/chat/completions") -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(f"{self.url}{path}", content=content, timeout=20.0)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Settings]:
    """A policy that was really fitted: on a run of the sample against an index of the embedded Milvus."""
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, milvus_uri=str(home / "milvus.db"))
    documents = home / "corpus" / "sample" / "documents"
    write_folder(documents, Document, load_documents("sample"), Manifest(kind="documents", command="test"))
    build_index(documents, "sample", settings, channels=("bm25",))
    request = Request(
        dataset="sample", limit=48, settings=("no_rag", "caption_query"), documents=documents, index="sample", k=3
    )

    def say(body: dict[str, Any]) -> str:
        options = NUMBERED.findall(said_to(body))
        return json.dumps({"answer": preferred(options) + 1}) if options else "a bowl of soup"

    with model_server(say) as url:
        folder = run(request, settings, nullcontext(url), silent)
    return fit_run(folder).policies["caption_query"], settings


@contextmanager
def served(policy: Policy | None, settings: Settings, folder: Path, **environment: str) -> Iterator[Served]:
    file, log = folder / "policy.json", folder / "serve.log"
    command = [sys.executable, "-m", "m4rag.cli", "serve", "--port", "0"]
    command += ["--retrieval", "off"] if policy is None else ["--policy", str(file)]
    if policy is not None:
        policy.write(file)
    told = {"MILVUS_URI": settings.milvus, "M4RAG_HOME": str(settings.home), **environment}
    with upstream() as model, log.open("wb") as stream:
        command += ["--vlm-url", model.url]
        process = subprocess.Popen(command, stderr=stream, stdout=stream, env={**os.environ, **told})
        try:
            yield Served(_address(process, log), model, file, process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if said := re.search(r"^serving on (\S+)$", log.read_text(), re.MULTILINE):
            return said[1]
        time.sleep(0.05)
    raise AssertionError(f"the endpoint did not start: {log.read_text()}")


def served_policy(policy: Policy, **changed: Any) -> Policy:
    """The fitted policy with another rule, of the scripted model."""
    return policy.model_copy(update={"model": NAME, **changed}).sealed()


@pytest.fixture(scope="module")
def plain(fitted: tuple[Policy, Settings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(None, fitted[1], tmp_path_factory.mktemp("plain"), M4RAG_SERVE_MAX_BODY_BYTES="2000000") as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def always(fitted: tuple[Policy, Settings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    policy = served_policy(fitted[0], retrieve="always", gate=None)
    with served(policy, fitted[1], tmp_path_factory.mktemp("always")) as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest) -> None:
    for name in ("plain", "always"):
        if name in request.fixturenames:
            request.getfixturevalue(name).model.reset()


def test_chat_passes_what_the_model_says_and_says_what_was_done(plain: Served) -> None:
    made = plain.ask("what is it?", temperature=0.0, seed=7)
    assert made.choices[0].message.content == "it is soup"
    assert made.usage.total_tokens == 5
    assert made.m4rag["decision"] == "not_retrieved"
    body = plain.model.bodies[-1]
    assert (body["seed"], said_to(body)) == (7, "what is it?")
    assert "m4rag" not in body


def test_a_stream_comes_whole_and_its_first_piece_says_what_was_done(plain: Served) -> None:
    pieces = list(plain.ask("what is it?", stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].delta.content for piece in pieces if piece.choices) == "it is soup"
    assert pieces[0].m4rag["decision"] == "not_retrieved"
    assert pieces[-1].usage.total_tokens == 5
    assert all("m4rag" not in (piece.model_extra or {}) for piece in pieces[1:])


def test_images_structured_output_and_tools_reach_the_model_as_they_are(plain: Served) -> None:
    text = {"type": "text", "text": "what is it?"}
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    schema = {"type": "json_schema", "json_schema": {"name": "dish", "schema": {"type": "object"}}}
    messages: Any = [{"role": "user", "content": [IMAGE, text]}]
    chat = plain.client.chat.completions
    assert json.loads(chat.create(model=NAME, messages=messages, response_format=schema).choices[0].message.content)  # type: ignore[arg-type]
    assert (
        chat.create(model=NAME, messages=messages, tools=[tool]).choices[0].message.tool_calls[0].function.name
        == "look"
    )  # type: ignore[list-item,index,union-attr]
    sent = plain.model.bodies[-1]
    assert sent["messages"][0]["content"] == [IMAGE, text]
    assert sent["tools"] == [tool]


@pytest.mark.parametrize(
    ("status", "seen", "error"),
    [
        (400, 400, openai.BadRequestError),
        (422, 422, openai.UnprocessableEntityError),
        (429, 503, openai.InternalServerError),
        (500, 502, openai.InternalServerError),
        (503, 503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_models_trouble_has_its_status(
    plain: Served, status: int, seen: int, error: type[openai.APIStatusError], stream: bool
) -> None:
    plain.model.fails = lambda body: (status, "at 10.1.2.3: no")
    with pytest.raises(error) as caught:
        plain.ask("what is it?", stream=stream)
    assert caught.value.status_code == seen
    assert ("10.1.2.3" in str(caught.value)) == (status in (400, 422)), "only what is about the request is passed on"
    if seen == 503:
        assert int(caught.value.response.headers["Retry-After"]) > 0


REFUSED: list[tuple[str, Any, int, str | None]] = [
    ("not JSON", b"{", 400, None),
    ("empty", b"", 400, "messages"),
    ("not an object", [], 400, None),
    ("no messages", {}, 400, "messages"),
    ("no user", {"messages": [{"role": "system", "content": "x"}]}, 400, "messages"),
    ("unknown role", {"messages": [{"role": "root", "content": "x"}]}, 400, "messages[0]"),
    ("unknown field", {"messages": [{"role": "user", "content": "x"}], "chat_template": "x"}, 400, "chat_template"),
    ("other model", {"model": "gpt", "messages": [{"role": "user", "content": "x"}]}, 404, "model"),
    ("too many tokens", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 10**6}, 400, "max_tokens"),
    ("unknown wish", {"messages": [{"role": "user", "content": "x"}], "m4rag": {"kk": 1}}, 400, "m4rag.kk"),
    (
        "retrieval where there is none",
        {"messages": [{"role": "user", "content": "x"}], "m4rag": {"retrieve": "always"}},
        400,
        "m4rag.retrieve",
    ),
    ("too large", {"messages": [{"role": "user", "content": "x" * 2_100_000}]}, 413, None),
]


@pytest.mark.parametrize(("body", "status", "param"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_request_that_can_not_be_answered_says_why(plain: Served, body: Any, status: int, param: str | None) -> None:
    reply = plain.post(body)
    assert reply.status_code == status
    assert reply.json()["error"]["param"] == param
    assert reply.json()["error"]["message"]
    assert not plain.model.bodies


ADDRESSES = [
    "http://127.0.0.1:1/x.png",
    "https://example.org/x.png",
    "http://169.254.169.254/latest/meta-data",
    "http://[::1]/x.png",
    "file:///etc/passwd",
    "/etc/passwd",
    "ftp://example.org/x",
    "data:text/html;base64,AAAA",
    "data:image/png;base64,AAAA",
    "data:image/png,AAAA",
    "DATA:IMAGE/SVG+XML;base64,PHN2Zy8+",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("kind", ["image_url", "video_url", "input_audio", "file"])
def test_no_address_is_fetched_and_no_other_kind_of_part_gets_through(plain: Served, address: str, kind: str) -> None:
    part = {"type": kind, kind: {"url": address}}
    reply = plain.post({"messages": [{"role": "user", "content": [part, {"type": "text", "text": "x"}]}]})
    assert reply.status_code == 400, reply.text
    assert not plain.model.bodies


def test_a_caller_that_goes_away_makes_the_model_stop(plain: Served) -> None:
    plain.model.pause_s = 0.05
    stream = plain.ask("what is it?", stream=True)
    next(iter(stream))
    stream.close()
    _until(lambda: plain.model.left == 1)
    plain.model.pause_s = 30.0
    with pytest.raises(openai.APITimeoutError):
        plain.client.with_options(timeout=0.5).chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": "x"}]
        )
    _until(lambda: plain.model.left == 2)


def test_a_model_that_breaks_off_ends_the_stream_with_an_error(plain: Served) -> None:
    plain.model.breaks_after = 2
    with pytest.raises(openai.APIError) as caught:
        list(plain.ask("what is it?", stream=True))
    assert "does not answer" in str(caught.value)


def test_passages_are_shown_cited_and_kept_as_data(always: Served) -> None:
    question = "Which dish is made of rice in a banana leaf?"
    text = {"type": "text", "text": question}
    made = always.client.chat.completions.create(
        model=NAME, messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": [text, IMAGE]}]
    )
    account = made.m4rag  # type: ignore[attr-defined]
    assert account["decision"] == "retrieved"
    assert account["index"].startswith("sample__")
    assert [citation["number"] for citation in account["citations"]] == [1, 2, 3]
    scores = [citation["score"] for citation in account["citations"]]
    assert scores == sorted(scores, reverse=True)
    system, user = always.model.bodies[-1]["messages"]
    assert system["content"] == "Be brief."
    image, prompt = user["content"]
    assert image == IMAGE
    assert prompt["text"].endswith(f"### Message\n{question}")
    assert prompt["text"].index("[1]") < prompt["text"].index("[2]") < prompt["text"].index(question)


def test_a_wish_is_followed(always: Served) -> None:
    never = always.ask("rice", extra_body={"m4rag": {"retrieve": "never"}})
    assert never.m4rag["decision"] == "not_retrieved"
    assert said_to(always.model.bodies[-1]) == "rice"
    filters = {"languages": ["en"]}
    made = always.ask("rice noodle soup", extra_body={"m4rag": {"k": 2, "filters": filters}})
    assert 0 < len(made.m4rag["citations"]) <= 2
    assert {citation["language"] for citation in made.m4rag["citations"]} == {"en"}


def test_a_prompt_that_is_too_long_is_asked_again_with_fewer_passages(always: Served) -> None:
    def fails(body: dict[str, Any]) -> tuple[int, str] | None:
        return (400, "maximum context length is 10 tokens") if "[2]" in said_to(body) else None

    always.model.fails = fails
    made = always.ask("rice noodle soup")
    assert len(always.model.bodies) == 2
    assert len(made.m4rag["citations"]) == 1
    assert "1 of 3 passages fit" in made.m4rag["reason"]


def test_questions_at_once_get_their_own_passages(always: Served) -> None:
    words = [citation["title"] for text in ("rice", "soup", "bread", "festival") for citation in _found(always, text)]
    alone = {word: [citation["chunk_id"] for citation in _found(always, word)] for word in set(words)}
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda word: (word, _found(always, word)), list(alone) * 8))
    assert len(alone) > 3
    for word, found in together:
        assert [citation["chunk_id"] for citation in found] == alone[word]


def _found(endpoint: Served, text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = endpoint.ask(text).m4rag["citations"]
    return found


def test_a_gate_decides_by_the_score_and_a_changed_policy_is_taken(
    fitted: tuple[Policy, Settings], tmp_path: Path
) -> None:
    def gated(threshold: float) -> Policy:
        return served_policy(fitted[0], retrieve="gated", gate=Gate(signal="score", threshold=threshold))

    # One process at a time may have an embedded Milvus open, and this one may still be served elsewhere.
    shutil.copytree(fitted[1].milvus, tmp_path / "milvus.db")
    settings = fitted[1].model_copy(update={"milvus_uri": str(tmp_path / "milvus.db")})
    with served(gated(1e6), settings, tmp_path) as endpoint:
        low = endpoint.ask("rice noodle soup").m4rag
        assert (low["decision"], low["citations"]) == ("not_retrieved", [])
        assert low["gate"]["value"] < low["gate"]["threshold"] == 1e6
        endpoint.policy.write_text("{}")
        _until(lambda: "policy refused" in endpoint.log.read_text())
        assert endpoint.ask("rice noodle soup").m4rag["policy"] == low["policy"]
        gated(0.0).write(endpoint.policy)
        _until(lambda: endpoint.ask("rice noodle soup").m4rag["decision"] == "retrieved")


def test_a_policy_of_another_model_is_not_served(fitted: tuple[Policy, Settings], tmp_path: Path) -> None:
    other = served_policy(fitted[0], model="other")
    with pytest.raises(AssertionError, match="the policy is of the model"), served(other, fitted[1], tmp_path):
        pass


@pytest.mark.milvus_server
def test_a_frozen_index_degrades_the_answers_and_comes_back(
    fitted: tuple[Policy, Settings], milvus_server: MilvusServer, tmp_path: Path
) -> None:
    settings = fitted[1].model_copy(update={"milvus_uri": milvus_server.uri})
    documents = settings.home / "corpus" / "sample" / "documents"
    build_index(documents, "served", settings, encoder="minilm", channels=("dense",), dim=64)
    policy = served_policy(
        fitted[0], retrieve="always", gate=None, index_alias="served", encoder="minilm", channel="dense"
    )
    with served(policy, settings, tmp_path, M4RAG_SERVE_RETRIEVE_TIMEOUT_S="2") as endpoint:
        assert endpoint.ask("rice").m4rag["decision"] == "retrieved"
        milvus_server.freeze()
        try:
            made = endpoint.ask("rice")
            assert made.choices[0].message.content == "it is soup"
            assert made.m4rag["decision"] == "degraded"
            assert said_to(endpoint.model.bodies[-1]) == "rice"
            for _ in range(3):
                endpoint.ask("rice")
            started = time.monotonic()
            assert "left alone" in endpoint.ask("rice").m4rag["reason"]
            assert time.monotonic() - started < 2, "the breaker is open: nothing waits for the index"
            assert httpx.get(endpoint.url.removesuffix("/v1") + "/v2/health/ready").json()["index"] is False
        finally:
            milvus_server.signal(signal.SIGCONT)
        _until(lambda: endpoint.ask("rice").m4rag["decision"] == "retrieved", 60)


def test_running_requests_end_before_the_endpoint_does(fitted: tuple[Policy, Settings], tmp_path: Path) -> None:
    with served(None, fitted[1], tmp_path) as endpoint, ThreadPoolExecutor(4) as pool:
        endpoint.model.pause_s = 1.0
        asked = [pool.submit(endpoint.ask, "x") for _ in range(4)]
        _until(lambda: len(endpoint.model.bodies) == 4)
        endpoint.process.send_signal(signal.SIGTERM)
        assert [made.result().choices[0].message.content for made in asked] == ["it is soup"] * 4
        assert endpoint.process.wait(20) == 0


def test_too_many_requests_are_refused_at_once(fitted: tuple[Policy, Settings], tmp_path: Path) -> None:
    few = {"M4RAG_SERVE_MAX_IN_FLIGHT": "1", "M4RAG_SERVE_MAX_WAITING": "1", "M4RAG_SERVE_MAX_WAIT_S": "20"}
    with served(None, fitted[1], tmp_path, **few) as endpoint, ThreadPoolExecutor(3) as pool:
        endpoint.model.pause_s = 1.0
        asked = [pool.submit(endpoint.ask, "x") for _ in range(3)]
        refused = [error for each in asked if (error := each.exception()) is not None]
    assert len(refused) == 1
    assert isinstance(refused[0], openai.RateLimitError)
    assert int(refused[0].response.headers["Retry-After"]) > 0


def test_health_metrics_and_models(plain: Served) -> None:
    root = plain.url.removesuffix("/v1")
    assert httpx.get(f"{root}/v2/health/live").status_code == 200
    assert httpx.get(f"{root}/v2/health/ready").json()["ready"] is True
    plain.ask("x")
    assert 'm4rag_requests_total{route="chat",status="200"}' in httpx.get(f"{root}/metrics").text
    assert [model.id for model in plain.client.models.list()] == [NAME]
    assert plain.client.with_options(base_url=f"{root}/openai/v1").models.list().data[0].id == NAME
    assert httpx.get(f"{root}/nothing").json()["error"]["type"] == "not_found_error"


def test_the_log_has_no_word_of_the_question(plain: Served) -> None:
    plain.ask("a-secret-word")
    assert "a-secret-word" not in plain.log.read_text()


def _until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
