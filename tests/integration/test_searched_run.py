"""A run that captions and searches: a real index on the embedded Milvus, a model that says what it was shown."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from content_server import model_server

from m4rag.bench.benchmark import Request, run
from m4rag.bench.runs import Caption, Context
from m4rag.datasets import load_documents
from m4rag.index.build import build_index
from m4rag.manifests import Manifest
from m4rag.progress import silent
from m4rag.schema import Answer, Document, Question
from m4rag.settings import Settings
from m4rag.shards import read_folder, write_folder
from m4rag.vlm.prompts import render_caption

QUESTIONS, K = 48, 3
PASSAGE = re.compile(r"^- ", re.MULTILINE)


class Ran(NamedTuple):
    folder: Path
    bodies: list[dict[str, Any]]

    @property
    def captioned(self) -> list[str]:
        """The picture of each request for a caption."""
        return [body["messages"][0]["content"][0]["image_url"]["url"] for body in self.bodies if _text(body) == CAPTION]


CAPTION = render_caption()


def _text(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"][-1]["text"])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, milvus_uri=str(home / "milvus.db"))
    documents = home / "corpus" / "sample" / "documents"
    made_by = Manifest(kind="documents", command="test")
    write_folder(documents, Document, load_documents("sample"), made_by)
    build_index(documents, "sample", settings, channels=("bm25",))
    bodies: list[dict[str, Any]] = []

    def say(body: dict[str, Any]) -> str:
        bodies.append(body)
        if _text(body) == CAPTION:
            return f"Picture {_named(body['messages'][0]['content'][0]['image_url']['url'])}"
        return '{"answer": 1}'

    request = Request(
        dataset="sample",
        limit=QUESTIONS,
        settings=("oracle_query", "caption_query"),
        documents=documents,
        index="sample",
        k=K,
    )
    with model_server(say) as url:
        folder = run(request, settings, nullcontext(url), silent)
    yield Ran(folder, bodies)


def _named(data_url: str) -> str:
    return hashlib.sha256(data_url.encode()).hexdigest()[:12]


def test_m4rag_fault_06_every_picture_is_captioned_and_none_twice(ran: Ran) -> None:
    pictures = {question.image for question in read_folder(ran.folder / "questions", Question)}
    assert len(ran.captioned) == len(set(ran.captioned)) == len(pictures) > 1
    captions = list(read_folder(ran.folder / "captions", Caption))
    assert {caption.image for caption in captions} == pictures
    assert {caption.text for caption in captions} == {f"Picture {_named(url)}" for url in ran.captioned}


def test_m4rag_fault_07_a_query_is_one_text_of_the_question_and_its_own_caption(ran: Ran) -> None:
    captions = {caption.image: caption.text for caption in read_folder(ran.folder / "captions", Caption)}
    gold = {document.document_id: document.text for document in load_documents("sample")}
    questions = list(read_folder(ran.folder / "questions", Question))
    asked = {
        setting: [context.query for context in read_folder(ran.folder / "contexts" / setting, Context)]
        for setting in ("caption_query", "oracle_query")
    }
    for question, by_caption, by_gold in zip(questions, asked["caption_query"], asked["oracle_query"], strict=True):
        assert by_caption == f"{question.question}\n{captions[question.image or '']}"
        assert by_gold == "\n".join([question.question, *(gold[f"{name}:en"] for name in question.gold)])


def test_m4rag_fault_03_a_prompt_shows_as_many_passages_as_were_asked_for(ran: Ran) -> None:
    found = {
        (setting, context.question_id): len(context.passages)
        for setting in ("caption_query", "oracle_query")
        for context in read_folder(ran.folder / "contexts" / setting, Context)
    }
    assert max(found.values()) == K
    shown = Counter(len(PASSAGE.findall(_text(body))) for body in ran.bodies if _text(body) != CAPTION)
    assert shown == Counter(found.values())
    for answer in read_folder(ran.folder / "answers", Answer):
        assert len(answer.retrieved) == found[answer.setting, answer.question_id]
