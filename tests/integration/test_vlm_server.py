"""The launcher and the client with a real vLLM: answers, limits, a sudden death, embeddings, nothing left behind."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import Request, urlopen

import pytest

from m4rag import models
from m4rag.datasets import load_questions
from m4rag.errors import Unavailable
from m4rag.schema import Status
from m4rag.training.nano import CONTEXT, IMAGE_TOKENS, SIZES
from m4rag.vlm import guard, launcher
from m4rag.vlm.client import Completion, ContextTooLong, VlmClient
from m4rag.vlm.images import ImageData, read_image
from m4rag.vlm.launcher import VllmServer
from m4rag.vlm.parsing import parse
from m4rag.vlm.prompts import EXPLANATION_LENGTH, answer_schema, render_caption, render_question

pytestmark = pytest.mark.vllm

T = TypeVar("T")


QUESTIONS = load_questions("museum", limit=64)
PICTURES = sorted({str(question.image) for question in QUESTIONS})


def picture(number: int) -> ImageData:
    return read_image(PICTURES[number % len(PICTURES)])


def question(number: int, n_options: int = 4) -> str:
    asked = QUESTIONS[number % len(QUESTIONS)]
    passage = f"Passage {number}: అన్నం మరియు పప్పుతో చేసిన వంటకం. " * 6
    options = [*asked.options, *(f"dish {number + i}" for i in range(n_options))][:n_options]
    return render_question(asked.question, options, [passage])


def with_client(server: VllmServer, ask: Callable[[VlmClient], Awaitable[T]], **options: Any) -> T:
    async def run() -> T:
        async with VlmClient(server.url, **options) as client:
            return await ask(client)

    return asyncio.run(run())


async def answer(client: VlmClient, number: int, n_options: int = 4) -> Completion:
    return await client.generate(
        question(number, n_options), image=picture(number), schema=answer_schema(n_options), max_tokens=512
    )


@pytest.mark.parametrize("n_options", [2, 5, 8])
def test_m4rag_fault_01_the_grammar_holds_every_answer_to_the_schema(vlm_server: VllmServer, n_options: int) -> None:
    async def ask(client: VlmClient) -> list[Completion]:
        return list(await asyncio.gather(*(answer(client, number, n_options) for number in range(24))))

    for completion in with_client(vlm_server, ask):
        said = json.loads(completion.text)
        assert list(said) == ["explanation", "answer"]
        assert len(said["explanation"]) <= EXPLANATION_LENGTH
        assert said["answer"] in range(1, n_options + 1)
        assert parse(completion.text, n_options, completion.finish_reason).status is Status.OK
        assert completion.finish_reason == "stop"
        assert completion.prompt_tokens > IMAGE_TOKENS
        assert completion.completion_tokens > 0


def test_m4rag_fault_17_a_started_server_looks_at_the_image(vlm_server: VllmServer) -> None:
    async def ask(client: VlmClient) -> set[str]:
        images = [picture(seed) for seed in range(16)]
        said = await asyncio.gather(*(client.generate(question(1), image=image, max_tokens=48) for image in images))
        return {completion.text for completion in said}

    assert len(with_client(vlm_server, ask)) > 1


def test_answers_do_not_depend_on_what_else_is_in_flight(vlm_server: VllmServer) -> None:
    async def ask(client: VlmClient) -> list[str]:
        return [one.text for one in await asyncio.gather(*(answer(client, number) for number in range(48)))]

    together = with_client(vlm_server, ask, concurrency=16)
    assert together == with_client(vlm_server, ask, concurrency=1)
    assert len({parse(text, 4).choice for text in together}) > 1


def test_the_server_tells_what_it_serves(vlm_server: VllmServer) -> None:
    served = with_client(vlm_server, lambda client: client.model())
    assert served.name == models.VLM == vlm_server.model
    assert served.engine.startswith("vllm 0.")
    assert Path(served.root) == models.folder(models.VLM)
    assert served.max_model_len == CONTEXT


def test_a_caption_needs_no_schema(vlm_server: VllmServer) -> None:
    caption = with_client(vlm_server, lambda client: client.generate(render_caption(), image=picture(1), max_tokens=64))
    assert 0 < caption.completion_tokens <= 64


def test_a_prompt_that_is_too_long_is_refused_as_such(vlm_server: VllmServer) -> None:
    with pytest.raises(ContextTooLong, match=str(CONTEXT)):
        with_client(vlm_server, lambda client: client.generate("x" * 70_000, max_tokens=64))
    assert with_client(vlm_server, lambda client: answer(client, 1)).finish_reason == "stop"


def test_the_token_limit_is_told(vlm_server: VllmServer) -> None:
    cut = with_client(
        vlm_server, lambda client: client.generate(question(1), image=picture(1), schema=answer_schema(4), max_tokens=5)
    )
    assert cut.finish_reason == "length"
    assert parse(cut.text, 4, cut.finish_reason).status is Status.TRUNCATED


def test_a_failed_start_is_explained_and_leaves_nothing(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    with pytest.raises(Unavailable, match=r"vllm\.log: vLLM did not start: A context of 1000000 tokens is longer"):
        launcher.start(models.folder(models.VLM), served_name="x", log=log, max_model_len=1_000_000)
    assert not _processes_naming(str(models.folder(models.VLM)), str(log.parent))


def test_an_empty_model_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="holds no config"):
        launcher.start(tmp_path, served_name="x", log=tmp_path / "vllm.log")


def test_up_outlives_its_command_and_a_sudden_death_is_told(tmp_path: Path) -> None:
    def m4rag(*arguments: str) -> tuple[int, Any]:
        environment = os.environ | {"M4RAG_HOME": str(tmp_path)}
        command = [sys.executable, "-m", "m4rag.cli", "vlm", *arguments, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=400)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    code, server = m4rag("up")
    try:
        assert code == 0
        assert m4rag("up") == (0, server), "a second `up` keeps the first server"
        assert m4rag("status") == (0, {"up": server | {"answering": True}})
        failure = asyncio.run(_kill_in_the_middle(server["url"], server["pid"]))
        assert server["url"] in str(failure)
        assert "m4rag vlm status" in str(failure)
        assert _gone(server["pid"]), "the guard ends what the killed server left"
        assert m4rag("status") == (1, {"up": None})
    finally:
        code, stopped = m4rag("down")
    assert (code, stopped) == (0, {"stopped": None})


async def _kill_in_the_middle(url: str, group: int) -> Unavailable:
    """Ask without end, kill the server while it answers; the error that the callers get."""
    async with VlmClient(url, concurrency=8) as client:
        await answer(client, 0)
        asking = [asyncio.create_task(_ask_on(client, start)) for start in range(0, 8000, 1000)]
        await asyncio.sleep(0.5)
        server = min(pid for pid in guard.members(group) if pid != group)
        os.kill(server, signal.SIGKILL)
        errors = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), timeout=60)
    assert all(isinstance(error, Unavailable) for error in errors), errors
    assert isinstance(errors[0], Unavailable)
    return errors[0]


async def _ask_on(client: VlmClient, start: int) -> None:
    number = start
    while True:
        await answer(client, number)
        number += 1


def _gone(group: int) -> bool:
    deadline = time.monotonic() + 30
    while guard.members(group):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _processes_naming(*texts: str) -> list[str]:
    """Command lines of vLLM's own processes that hold one of the texts beside the launcher's session servers."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "--served-model-name x " in command and any(text in command for text in texts):
            found.append(command)
    return found


def embed(server: VllmServer, body: dict[str, Any]) -> list[tuple[float, ...]]:
    payload = json.dumps({"model": server.model, "encoding_format": "base64", **body}).encode()
    request = Request(f"{server.url}/embeddings", payload, {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as response:
        items = json.loads(response.read())["data"]
    raw = [base64.b64decode(item["embedding"]) for item in sorted(items, key=lambda item: item["index"])]
    return [struct.unpack(f"<{len(data) // 4}f", data) for data in raw]


def message(*parts: str | ImageData) -> dict[str, Any]:
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": part.data_url}}
        for part in parts
    ]
    return {"messages": [{"role": "user", "content": content}]}


def cosine(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True))


def test_embeddings_have_unit_length_and_tell_images_apart(embedding_server: VllmServer) -> None:
    requests = [message(picture(1)), message(picture(2)), message(picture(1), "soup"), message(picture(2), "soup")]
    requests += [message("soup"), message("bread")]
    vectors = [embed(embedding_server, request)[0] for request in requests]
    for vector in vectors:
        assert len(vector) == SIZES[models.EMBED].hidden
        assert cosine(vector, vector) == pytest.approx(1, abs=1e-3)
    for first, second in (vectors[0:2], vectors[2:4], vectors[4:6]):
        assert cosine(first, second) < 0.99
    assert cosine(vectors[0], embed(embedding_server, requests[0])[0]) == pytest.approx(1, abs=1e-3)


def test_a_list_of_texts_is_embedded_in_its_order(embedding_server: VllmServer) -> None:
    texts = [f"text {number} ఆహారం" for number in range(20)]
    together = embed(embedding_server, {"input": texts})
    assert len(together) == 20
    for text, vector in zip(texts, together, strict=True):
        assert cosine(vector, embed(embedding_server, {"input": [text]})[0]) == pytest.approx(1, abs=1e-2)
