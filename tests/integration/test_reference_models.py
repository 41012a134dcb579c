"""The shipped reference models: what vLLM serves is what was trained, and it shows what it was trained to show."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from m4rag import models
from m4rag.datasets import load_documents, load_questions
from m4rag.encoders import Query, load
from m4rag.manifests import file_digest
from m4rag.schema import Question
from m4rag.settings import Settings
from m4rag.training import nano
from m4rag.training.retriever import encoded
from m4rag.training.tokenizer import token, tokenizer
from m4rag.vlm import launcher
from m4rag.vlm.client import VlmClient
from m4rag.vlm.images import read_image
from m4rag.vlm.parsing import parse
from m4rag.vlm.prompts import answer_schema, render_question

if TYPE_CHECKING:
    import torch

    from m4rag.vlm.launcher import VllmServer

MEBIBYTES_ALLOWED = 40
QUESTIONS = load_questions("museum", limit=64)
CARDS = {document.document_id: document.text for document in load_documents("museum")}


def pixels(path: str | None) -> torch.Tensor:
    from PIL import Image

    return nano.pixels([np.asarray(Image.open(str(path)).convert("RGB"))])


def card(question: Question) -> str:
    return CARDS[f"{question.gold[0]}:en"]


def post(url: str, body: dict[str, Any]) -> Any:
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=120) as response:
        return json.loads(response.read())


def message(text: str, image: str | None) -> list[dict[str, Any]]:
    shown = [{"type": "image_url", "image_url": {"url": read_image(image).data_url}}] if image else []
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


def test_the_weights_are_those_of_the_sums_and_small() -> None:
    folder = models.folder("")
    listed = dict(
        reversed(line.split("  ", 1)) for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    )
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.name in models.NAMES)
    there = {str(path.relative_to(folder)): file_digest(path) for path in files if path.name != "README.md"}
    assert there == listed
    assert sum(path.stat().st_size for path in files) < MEBIBYTES_ALLOWED * 2**20


@pytest.mark.parametrize("name", models.NAMES)
def test_every_model_has_the_tokenizer_and_the_architecture_that_the_code_makes(name: str) -> None:
    folder = models.folder(name)
    assert json.loads((folder / "tokenizer.json").read_text("utf-8")) == json.loads(tokenizer().to_str())
    assert json.loads((folder / "config.json").read_text("utf-8")) == nano.config(name, tokenizer())
    assert "## Known failures" in (folder / "README.md").read_text("utf-8")


@pytest.mark.vllm
def test_vllm_gives_the_probabilities_that_transformers_gives(vlm_server: VllmServer) -> None:
    import torch

    model = nano.load(models.folder(vlm_server.model))
    for question in QUESTIONS[:6]:
        prompt = render_question(question.question, question.options, [card(question)])
        image = [token(nano.IMAGE_TOKEN)] * nano.IMAGE_TOKENS
        ids = [token(nano.BOS), token(nano.USER), *image, *tokenizer().encode(prompt).ids, token(nano.ASSISTANT)]
        answer = post(
            f"{vlm_server.url}/chat/completions",
            {
                "model": vlm_server.model,
                "messages": message(prompt, question.image),
                "temperature": 0,
                "max_tokens": 12,
                "logprobs": True,
                "top_logprobs": 5,
                "return_tokens_as_token_ids": True,
            },
        )
        assert answer["usage"]["prompt_tokens"] == len(ids)
        steps = answer["choices"][0]["logprobs"]["content"]
        said = [int(step["token"].removeprefix("token_id:")) for step in steps]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids + said]), pixel_values=pixels(question.image)).logits[0]
        expected = torch.softmax(logits.float(), -1)
        for place, step in enumerate(steps, start=len(ids) - 1):
            for choice in step["top_logprobs"]:
                here = expected[place, int(choice["token"].removeprefix("token_id:"))].item()
                assert np.exp(choice["logprob"]) == pytest.approx(here, abs=0.05)


@pytest.mark.vllm
def test_served_vectors_are_those_of_the_model_here(embedding_server: VllmServer) -> None:
    import torch

    model = nano.load(models.folder(models.EMBED))
    served = load(f"vllm:{embedding_server.url}", Settings())
    queries = [Query(q.question, q.image if number % 2 else None) for number, q in enumerate(QUESTIONS[:24])]
    there = served.encode_queries(queries)
    for query, vector in zip(queries, there, strict=True):
        ids = torch.tensor([encoded(query.text, image=query.image is not None)])
        shown = {"pixel_values": pixels(query.image)} if query.image else {}
        with torch.no_grad():
            here = model.model(input_ids=ids, **shown).last_hidden_state[0, -1].numpy()
        assert float(vector @ here / np.linalg.norm(here)) >= 0.999


@pytest.fixture(scope="module")
def multi_vector_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    folder = models.folder(models.COLEMBED)
    log = tmp_path_factory.mktemp("colembed") / "vllm.log"
    with launcher.start(folder, served_name=models.COLEMBED, runner="token_pooling", log=log) as server:
        yield server


@pytest.mark.vllm
def test_served_token_vectors_are_those_of_the_model_here(multi_vector_server: VllmServer) -> None:
    import torch

    model = nano.load(models.folder(models.COLEMBED))
    url = multi_vector_server.url.removesuffix("/v1")
    for number, question in enumerate(QUESTIONS[:6]):
        image = question.image if number % 2 else None
        body = {"model": multi_vector_server.model, "messages": message(question.question, image)}
        answer = post(f"{url}/pooling", body | {"task": "token_embed", "encoding_format": "base64"})
        raw = base64.b64decode(answer["data"][0]["data"])
        ids = torch.tensor([encoded(question.question, image=image is not None)])
        there = np.array(struct.unpack(f"<{len(raw) // 4}f", raw)).reshape(ids.shape[1], -1)
        with torch.no_grad():
            shown = {"pixel_values": pixels(image)} if image else {}
            here = model.model(input_ids=ids, **shown).last_hidden_state[0].numpy()
        cosines = (there * here).sum(1) / np.linalg.norm(there, axis=1) / np.linalg.norm(here, axis=1)
        assert cosines.min() >= 0.999


@pytest.mark.vllm
def test_context_decides_what_the_model_answers_about_new_things(vlm_server: VllmServer) -> None:
    """A regression test with wide margins; the measured figures are in the model cards."""
    new = [question for question in QUESTIONS if question.category == "new"]
    known = [question for question in QUESTIONS if question.category == "known"]
    right = asyncio.run(_share_right(vlm_server, new, with_card=True))
    blind = asyncio.run(_share_right(vlm_server, new, with_card=False))
    remembered = asyncio.run(_share_right(vlm_server, known, with_card=False))
    assert right > blind + 0.2
    assert remembered > blind + 0.2


async def _share_right(server: VllmServer, questions: list[Question], *, with_card: bool) -> float:
    async def right(client: VlmClient, question: Question) -> bool:
        prompt = render_question(question.question, question.options, [card(question)] if with_card else [])
        said = await client.generate(
            prompt, image=read_image(str(question.image)), schema=answer_schema(4), max_tokens=128
        )
        return parse(said.text, 4, said.finish_reason).choice == question.answer_index

    async with VlmClient(server.url) as client:
        return float(np.mean(await asyncio.gather(*(right(client, question) for question in questions))))
