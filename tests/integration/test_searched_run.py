"""A run that captions and searches: a real index on the embedded Milvus, a model that says what it was shown."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from content_server import model_server

from m4rag.bench.benchmark import Request, run
from m4rag.bench.runs import Caption, Context, Passage
from m4rag.cli.results import show
from m4rag.datasets import load_documents
from m4rag.errors import Unavailable
from m4rag.index.build import build_index
from m4rag.manifests import Manifest
from m4rag.progress import silent
from m4rag.schema import Answer, Document, Question, Status
from m4rag.settings import Settings
from m4rag.shards import read_folder, read_rows, write_folder
from m4rag.vlm.prompts import render_caption

QUESTIONS, K = 48, 3
PASSAGE = re.compile(r"^- ", re.MULTILINE)


class Ran(NamedTuple):
    folder: Path
    bodies: list[dict[str, Any]]

    @property
    def captioned(self) -> list[str]:
        """The picture of each request for a caption."""
        return [_picture(body) for body in self.bodies if _text(body) == CAPTION]


CAPTION = render_caption()


def _text(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"][-1]["text"])


class Server:
    """Says what it was shown, but will not caption the pictures that it `refuses`; keeps what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.refuses: Callable[[str], bool] = lambda name: False

    def __call__(self, body: dict[str, Any]) -> str | None:
        self.bodies.append(body)
        if _text(body) != CAPTION:
            return '{"answer": 1}'
        name = _named(_picture(body))
        return None if self.refuses(name) else f"Picture {name}"

    def asked(self) -> tuple[list[str], int]:
        """The pictures to caption and the number of questions since it was last called."""
        captioned = [_named(_picture(body)) for body in self.bodies if _text(body) == CAPTION]
        questions = len(self.bodies) - len(captioned)
        self.bodies.clear()
        return captioned, questions


class Searched(NamedTuple):
    settings: Settings
    request: Request


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, milvus_uri=str(home / "milvus.db"))
    documents = home / "corpus" / "sample" / "documents"
    made_by = Manifest(kind="documents", command="test")
    write_folder(documents, Document, load_documents("sample"), made_by)
    build_index(documents, "sample", settings, channels=("bm25",))
    request = Request(
        dataset="sample",
        limit=QUESTIONS,
        settings=("oracle_query", "caption_query"),
        documents=documents,
        index="sample",
        k=K,
        command="m4rag bench run --limit 48",
    )
    return Searched(settings, request)


@pytest.fixture(scope="module")
def ran(searched: Searched) -> Ran:
    server = Server()
    with model_server(server) as url:
        folder = run(searched.request, searched.settings, nullcontext(url), silent)
    return Ran(folder, server.bodies)


def _named(data_url: str) -> str:
    return hashlib.sha256(data_url.encode()).hexdigest()[:12]


def _picture(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"][0]["image_url"]["url"])


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


def test_m4rag_fault_32_a_picture_that_is_not_captioned_costs_its_own_questions_and_is_asked_for_again(
    tmp_path: Path, searched: Searched, ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = searched.settings.model_copy(update={"home": tmp_path})
    names = {_named(url) for url in ran.captioned}
    refused = set(sorted(names)[:2])
    server = Server()
    with model_server(server) as url:

        def again() -> tuple[Path, list[str], int]:
            folder = run(searched.request, settings, nullcontext(url), silent)
            captioned, questions = server.asked()
            return folder, sorted(captioned), questions

        server.refuses = refused.__contains__
        folder, captioned, questions = again()
        captions = list(read_folder(folder / "captions", Caption))
        without = {caption.image for caption in captions if caption.refused}
        assert captioned == sorted(names)
        assert {(caption.text, caption.refused) for caption in captions if caption.image in without} == {
            ("", "I refuse this one")
        }
        assert len(without) == len(refused)
        lost = {row.question_id for row in read_folder(folder / "questions", Question) if row.image in without}
        errors = [row for row in read_folder(folder / "answers", Answer) if row.status is Status.ERROR]
        assert {(row.setting, row.question_id) for row in errors} == {("caption_query", name) for name in lost}
        assert {row.raw for row in errors} == {"the image has no caption to search with: I refuse this one"}
        assert questions == 2 * QUESTIONS - len(lost), "they are not put to the model, and all others are"

        capsys.readouterr()
        show(folder, False, {"ui_command": None, "url": ""})
        told = " ".join(capsys.readouterr().out.split())
        assert "2 images have no caption, because the server refused (I refuse this one)" in told
        assert "Repeat the command and it asks again: m4rag bench run --limit 48" in told

        made = [Manifest.read(folder / part) for part in ("captions", "contexts/caption_query", "answers")]
        assert again() == (folder, sorted(refused), 0)
        same = [Manifest.read(folder / part) for part in ("captions", "contexts/caption_query", "answers")]
        assert [part.digest for part in same] == [part.digest for part in made]

        server.refuses = lambda name: False
        assert again() == (folder, sorted(refused), len(lost))
        assert Manifest.read(folder / "answers").digest == Manifest.read(ran.folder / "answers").digest
        assert _shown(folder) == _shown(ran.folder)
        assert again() == (folder, [], 0)
        show(folder, False, {"ui_command": None, "url": ""})
        assert "no caption" not in capsys.readouterr().out


def _shown(folder: Path) -> set[str]:
    return {passage.chunk_id for passage in read_folder(folder / "passages", Passage)}


def test_m4rag_fault_32_a_server_that_captions_nothing_stops_before_a_question_is_asked(
    tmp_path: Path, searched: Searched, ran: Ran
) -> None:
    settings = searched.settings.model_copy(update={"home": tmp_path})
    server = Server()
    server.refuses = lambda name: True
    with model_server(server) as url:
        for _ in range(2):
            with pytest.raises(Unavailable, match=rf"refused every one of the first {len(ran.captioned)} requests"):
                run(searched.request, settings, nullcontext(url), silent)
            assert server.asked()[1] == 0
        server.refuses = lambda name: False
        folder = run(searched.request, settings, nullcontext(url), silent)
    assert Manifest.read(folder / "answers").digest == Manifest.read(ran.folder / "answers").digest


def test_captions_and_contexts_from_before_refusals_were_kept_are_read(tmp_path: Path, ran: Ran) -> None:
    for part, model in (("captions", Caption), ("contexts/caption_query", Context)):
        for file in Manifest.read(ran.folder / part).files:
            table = pq.read_table(ran.folder / part / file.name).drop_columns(["refused"])
            pq.write_table(table, tmp_path / file.name)
            assert list(read_rows(tmp_path / file.name, model)) == list(read_rows(ran.folder / part / file.name, model))
