"""Encoders that run real models: MiniLM in this process, the same model behind vLLM, and a server that misbehaves."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from milvus_fixtures import free_port

from m4rag.corpus.chunker import chunk_document
from m4rag.encoders import Encoder, Query, load
from m4rag.encoders import endpoint as endpoint_module
from m4rag.encoders.loading import _minilm_folder
from m4rag.errors import BadData, M4ragError, Unavailable, UsageError
from m4rag.manifests import file_digest
from m4rag.schema import Chunk, Document
from m4rag.settings import Settings
from m4rag.vlm.engine import command, environment

TEXTS = [
    "A thick soup of lentils with lime.",
    "The capital of France is Paris.",
    "Roasted lamb with rosemary and garlic.",
    "How do I reset my password?",
]


def chunk(text: str, title: str = "title") -> Chunk:
    return Chunk(
        chunk_id=f"{abs(hash(text)):032x}"[:32],
        document_id="d",
        index=0,
        title=title,
        text=text,
        language="en",
        source="s",
        tokens=1,
    )


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return load("minilm", Settings())


def test_minilm_says_what_it_is(minilm: Encoder) -> None:
    assert (minilm.dim, minilm.languages, minilm.modalities) == (384, ("en",), ("text",))
    assert minilm.identity == load("minilm", Settings()).identity
    assert minilm.identity["model"] in str(minilm.identity)


def test_vectors_have_length_one_and_meaning(minilm: Encoder) -> None:
    passages = minilm.encode_passages([chunk(text) for text in TEXTS])
    queries = minilm.encode_queries([Query("lentil stew"), Query("I forgot my login")])
    assert passages.dtype == queries.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(passages, axis=1), 1.0, atol=1e-6)
    assert (queries @ passages.T).argmax(axis=1).tolist() == [0, 3]
    assert minilm.encode_queries([]).shape == minilm.encode_passages([]).shape == (0, 384)


def test_a_truncated_encoder_gives_the_normalised_prefix_and_another_identity(minilm: Encoder) -> None:
    short = load("minilm", Settings(), dim=64)
    whole = minilm.encode_queries([Query(TEXTS[0])])[0]
    prefix = whole[:64] / np.linalg.norm(whole[:64])
    np.testing.assert_allclose(short.encode_queries([Query(TEXTS[0])])[0], prefix, atol=1e-6)
    assert short.dim == 64
    assert short.identity != minilm.identity
    with pytest.raises(UsageError, match="385 dimensions of an encoder that has 384"):
        load("minilm", Settings(), dim=385)


def test_the_same_model_from_its_folder_is_the_same_encoder(minilm: Encoder) -> None:
    other = load(f"st:{_minilm_folder()}", Settings())
    assert other.identity == minilm.identity
    assert (other.name, other.languages) == ("model", None)


def test_passages_cut_with_the_encoders_tokenizer_fit_its_window(minilm: Encoder) -> None:
    assert minilm.tokenizer is not None
    assert minilm.max_tokens is not None
    text = " ".join(["ภาษาไทยไม่มีการเว้นวรรค", "antidisestablishmentarianism", "👩‍👩‍👧", "सत्यमेव जयते।"] * 200)
    chunks = chunk_document(
        Document(document_id="d", title="A long title, " * 5, text=text, language="th", source="s"),
        minilm.tokenizer,
        max_tokens=minilm.max_tokens,
    )
    assert len(chunks) > 5
    assert minilm.encode_passages(chunks).shape == (len(chunks), 384)


def test_a_passage_beyond_the_window_is_refused_and_a_query_is_reported(
    minilm: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BadData, match="1 of 2 passages are longer than the 256 tokens it reads"):
        minilm.encode_passages([chunk("short"), chunk("word " * 300)])
    with caplog.at_level(logging.WARNING):
        minilm.encode_queries([Query("word " * 300), Query("short")])
    assert "1 of 2 queries are longer than minilm reads" in caplog.text


def test_text_encoders_refuse_images(minilm: Encoder) -> None:
    with pytest.raises(UsageError, match="reads text only"):
        minilm.encode_queries([Query("a", image="x.png")])


@pytest.fixture(scope="module")
def served_minilm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MiniLM behind vLLM's pooling server."""
    folder, port, log = _minilm_folder(), free_port(), tmp_path_factory.mktemp("vllm") / "log"
    line = command(folder, "mini", port, "pooling", max_model_len=256, kv_cache_gib=0.5, gpu_memory=None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            line, env=environment(folder), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 300
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.vllm
def test_a_real_pooling_server_gives_the_vectors_of_the_library(served_minilm: str, minilm: Encoder) -> None:
    served = load(f"vllm:{served_minilm}", Settings())
    assert (served.dim, served.modalities, served.languages) == (384, ("text",), None)
    queries = [Query(f"{text} {number}") for number in range(40) for text in TEXTS]
    cosines = (served.encode_queries(queries) * minilm.encode_queries(queries)).sum(axis=1)
    assert cosines.min() > 0.999
    chunks = [chunk(text) for text in TEXTS]
    np.testing.assert_allclose(served.encode_passages(chunks), minilm.encode_passages(chunks), atol=0.01)


@pytest.mark.vllm
def test_a_real_pooling_server_is_cut_to_fewer_dimensions_here(served_minilm: str) -> None:
    settings = Settings(embedding_url=served_minilm)
    whole, short = load("vllm", settings), load("vllm", settings, dim=96)
    vector = whole.encode_queries([Query("soup")])[0][:96]
    np.testing.assert_allclose(short.encode_queries([Query("soup")])[0], vector / np.linalg.norm(vector), atol=1e-5)
    with pytest.raises(UsageError, match="385 dimensions of an encoder that has 384"):
        load("vllm", settings, dim=385)


@pytest.mark.vllm
def test_what_a_real_pooling_server_refuses_is_one_line(served_minilm: str) -> None:
    served = load(f"vllm:{served_minilm}", Settings())
    with pytest.raises(BadData, match=r"the server refuses it: 400 .*256") as caught:
        served.encode_passages([chunk("word " * 400)])
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="reads text only"):
        served.encode_queries([Query("a", image="x.png")])


@pytest.mark.vllm
def test_m4rag_fault_28_a_real_multimodal_server_embeds_texts_and_images(embedding_server: Any, tmp_path: Path) -> None:
    from PIL import Image

    for colour in ("red", "blue"):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{colour}.png")
    red, blue = str(tmp_path / "red.png"), str(tmp_path / "blue.png")
    encoder = load(f"vllm:{embedding_server.url}", Settings())
    assert encoder.modalities == ("text", "image")
    queries = [Query("ጤና", red), Query("ጤና", blue), Query("ጤና"), Query("", red), Query("ጤና", red)]
    vectors = encoder.encode_queries(queries)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    cosines = vectors @ vectors.T
    assert cosines[0, 4] > 0.999
    assert max(cosines[0, 1], cosines[0, 2], cosines[0, 3], cosines[2, 3]) < 0.9999
    passage = encoder.encode_passages([chunk("ጤና", title="")])
    assert (passage @ encoder.encode_queries([Query("\nጤና")]).T).item() > 0.999, (
        "queries and passages are written alike"
    )
    with pytest.raises(BadData, match="no such"):
        encoder.encode_queries([Query("x", str(tmp_path / "none.png"))])

    page = chunk("ጤና", title="").model_copy(update={"image": red, "image_digest": file_digest(Path(red))})
    passage = encoder.encode_passages([page])
    assert (passage @ encoder.encode_queries([Query("\nጤና", red)]).T).item() > 0.999, "the page's picture counts"
    Path(red).write_bytes(Path(blue).read_bytes())
    with pytest.raises(BadData, match="the picture changed since the corpus was ingested"):
        encoder.encode_passages([page])


Handler = Callable[[Any], Awaitable[Any]]


class Misbehaving:
    """A real HTTP server with the answers of an embedding server, until told to do otherwise."""

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.takes_images = False
        self.requests: list[dict[str, Any]] = []
        self.faults: list[Handler] = []

    async def models(self, _: Any) -> Any:
        from aiohttp import web

        return web.json_response({"data": [{"id": "served", "root": "/models/tiny-embedder"}]})

    async def embeddings(self, request: Any) -> Any:
        from aiohttp import web

        payload = await request.json()
        self.requests.append(payload)
        if self.faults:
            return await self.faults.pop(0)(request)
        if "messages" in payload and not self.takes_images:
            return web.json_response({"error": {"message": "no chat template"}}, status=400)
        count = len(payload.get("input", [0]))
        data = [{"index": number, "embedding": vector([1.0, float(number), 0.0])} for number in range(count)]
        return web.json_response({"data": data[::-1]})


def vector(values: list[float]) -> str:
    return base64.b64encode(np.array(values, dtype="<f4").tobytes()).decode()


def answering(status: int, **body: Any) -> Handler:
    async def answer(_: Any) -> Any:
        from aiohttp import web

        return web.json_response(body, status=status)

    return answer


async def broken_line(request: Any) -> Any:
    request.transport.close()


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Misbehaving, Encoder]]:
    from aiohttp import web

    monkeypatch.setattr(endpoint_module, "FIRST_PAUSE_S", 0.01)
    port, loop, ready = free_port(), asyncio.new_event_loop(), threading.Event()
    served = Misbehaving(f"vllm:http://127.0.0.1:{port}/v1")

    async def start() -> None:
        application = web.Application()
        application.router.add_get("/v1/models", served.models)
        application.router.add_post("/v1/embeddings", served.embeddings)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready.set()

    def serve() -> None:
        loop.create_task(start())
        loop.run_forever()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(10)
    yield served, load(served.spec, Settings())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_answers_are_put_in_the_order_of_the_questions(misbehaving: tuple[Misbehaving, Encoder]) -> None:
    served, encoder = misbehaving
    found = encoder.encode_queries([Query(str(number)) for number in range(150)])
    slopes = found[:, 1] / found[:, 0]
    np.testing.assert_allclose(slopes, [*range(64), *range(64), *range(22)], rtol=1e-5)
    assert (encoder.name, encoder.dim, encoder.modalities) == ("tiny-embedder", 3, ("text",))
    assert {payload["model"] for payload in served.requests} == {"served"}


def test_a_model_that_takes_images_gets_everything_as_messages(
    misbehaving: tuple[Misbehaving, Encoder], tmp_path: Path
) -> None:
    from PIL import Image

    served, _ = misbehaving
    served.takes_images = True
    encoder = load(served.spec, Settings())
    served.requests.clear()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    found = encoder.encode_queries([Query("first"), Query("dish", str(tmp_path / "red.png"))])
    assert found.shape == (2, 3)
    assert encoder.identity["form"] == "messages, page pictures"
    contents = sorted((each["messages"][0]["content"] for each in served.requests), key=len)
    assert contents[0] == [{"type": "text", "text": "first"}]
    assert contents[1][1] == {"type": "text", "text": "dish"}
    sent = contents[1][0]["image_url"]["url"].removeprefix("data:image/png;base64,")
    assert base64.b64decode(sent) == (tmp_path / "red.png").read_bytes()


@pytest.mark.parametrize("fault", [answering(429), answering(503), broken_line], ids=["429", "503", "broken"])
def test_a_passing_fault_is_asked_again(misbehaving: tuple[Misbehaving, Encoder], fault: Handler) -> None:
    served, encoder = misbehaving
    served.faults = [fault, fault]
    assert encoder.encode_queries([Query("x")]).shape == (1, 3)
    assert served.faults == []


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (answering(503, error={"message": "loading"}), Unavailable, "503 loading"),
        (answering(401, error="no key"), Unavailable, "401 no key"),
        (answering(400, error={"message": "too\nlong"}), BadData, "refuses it: 400 too long"),
        (answering(200, data=[]), BadData, "not an embeddings answer"),
        (answering(200, data=[{"index": 0, "embedding": "%%"}]), BadData, "not an embeddings answer"),
        (answering(200, data=[{"index": 0, "embedding": vector([float("nan"), 0, 0])}]), BadData, "not finite"),
        (
            answering(200, data=[{"index": n, "embedding": vector([1, 0, 0])} for n in (0, 1)]),
            BadData,
            "2 vectors for 1",
        ),
        (answering(200, data=[{"index": 0, "embedding": vector([1, 0])}]), BadData, "another model"),
    ],
    ids=["busy", "key", "refused", "nothing", "garbage", "nan", "too many", "other model"],
)
def test_a_lasting_fault_is_one_line(
    misbehaving: tuple[Misbehaving, Encoder], fault: Handler, error: type[M4ragError], message: str
) -> None:
    served, encoder = misbehaving
    served.faults = [fault] * endpoint_module.ATTEMPTS
    with pytest.raises(error, match=message) as caught:
        encoder.encode_queries([Query("x")])
    assert "\n" not in str(caught.value)


def test_a_server_that_says_nothing_is_given_up(
    misbehaving: tuple[Misbehaving, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silence(_: Any) -> Any:
        await asyncio.Event().wait()

    served, encoder = misbehaving
    monkeypatch.setattr(endpoint_module, "TIMEOUT_S", 0.2)
    served.faults, asked = [silence], len(served.requests)
    with pytest.raises(Unavailable, match="no answer in 0 s"):
        encoder.encode_queries([Query("x")])
    assert len(served.requests) == asked + 1, "a timeout is not asked again"


def test_no_server_is_exit_3() -> None:
    with pytest.raises(Unavailable, match="vllm serve MODEL --runner pooling"):
        load(f"vllm:http://127.0.0.1:{free_port()}/v1", Settings())
