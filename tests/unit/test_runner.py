"""How a run is asked: its order, what a server refuses, what the same command asks again."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path

import pytest
from content_server import content_server
from hypothesis import given
from hypothesis import strategies as st

from m4rag import datasets
from m4rag.bench import benchmark
from m4rag.bench.benchmark import Request
from m4rag.bench.refusals import FIRST
from m4rag.bench.runs import RunPlan
from m4rag.bench.tasks import by_image, keys, tasks
from m4rag.datasets import load_documents, load_questions
from m4rag.errors import Unavailable
from m4rag.manifests import Manifest
from m4rag.progress import silent
from m4rag.schema import Answer, Document, Status
from m4rag.settings import Settings
from m4rag.shards import read_folder, write_folder

QUESTIONS = 64
SETTINGS = ("no_rag", "oracle")


class Refusing:
    """What a server refuses, by prompt; tests change it while it runs."""

    def __init__(self) -> None:
        self.words: tuple[str, ...] = ()

    def __call__(self, prompt: str) -> bool:
        return any(word in prompt for word in self.words)


@pytest.fixture
def refusing() -> Refusing:
    return Refusing()


@pytest.fixture
def server(refusing: Refusing) -> Iterator[tuple[str, list[str]]]:
    with content_server(refusing) as given:
        yield given


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Request:
    folder = tmp_path_factory.mktemp("corpus") / "documents"
    write_folder(folder, Document, load_documents("sample"), Manifest(kind="documents", command="test", config={}))
    return Request(dataset="sample", limit=QUESTIONS, settings=SETTINGS, documents=folder)


def run(request: Request, home: Path, url: str, concurrency: int = 8) -> Path:
    return benchmark.run(request, Settings(home=home, vlm_concurrency=concurrency), nullcontext(url), silent)


def answers(folder: Path) -> list[Answer]:
    return list(read_folder(folder / "answers", Answer))


def only_run(home: Path) -> Path:
    (folder,) = (home / "runs").iterdir()
    return folder


@pytest.fixture(autouse=True)
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    # Scoring and the report are tested elsewhere and take longer than all that is tested here.
    monkeypatch.setattr(benchmark, "finish", lambda folder: None)


@given(images=st.lists(st.one_of(st.none(), st.sampled_from("abcde"))))
def test_equal_images_stand_together_and_nothing_is_lost(images: list[str | None]) -> None:
    order = by_image(images)
    assert sorted(order) == list(range(len(images)))
    shown = [images[place] for place in order]
    assert len(list(groupby(shown))) == len(set(shown))
    assert list(dict.fromkeys(shown)) == list(dict.fromkeys(images))
    for image in set(images):
        places = [place for place in order if images[place] == image]
        assert places == sorted(places)


def test_questions_about_one_image_are_asked_together_and_the_tables_keep_their_order(
    tmp_path: Path, request_: Request, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = load_questions("sample", None, QUESTIONS)
    random.Random(0).shuffle(mixed)
    monkeypatch.setattr(datasets, "load_questions", lambda *given: mixed)
    folder = run(request_, tmp_path, server[0], concurrency=1)
    plan = RunPlan.read(folder)
    asked = list(tasks(folder, plan, done=()))
    assert Counter(task.key for task in asked) == Counter(keys(folder, plan))
    assert len(list(groupby(task.question.image for task in asked))) == len({task.question.image for task in asked})
    for task in asked:
        assert (task.context is not None) == (task.setting == "oracle")
        assert task.context is None or task.context.question_id == task.question.question_id
    texts = [task.question.question for task in asked]
    assert all(text in prompt for text, prompt in zip(texts, server[1], strict=True)), "asked in another order"
    ids = [question.question_id for question in mixed]
    assert [(row.setting, row.question_id) for row in answers(folder)] == [(s, i) for s in SETTINGS for i in ids]
    assert [task.question.question_id for task in asked[:: len(SETTINGS)]] != ids


def test_neither_order_nor_concurrency_leaves_a_trace(
    tmp_path: Path, request_: Request, server: tuple[str, list[str]]
) -> None:
    digests = {
        Manifest.read(run(request_, tmp_path / str(many), server[0], many) / "answers").digest for many in (1, 7, 64)
    }
    assert len(digests) == 1


def test_what_is_done_is_neither_asked_nor_read(
    tmp_path: Path, request_: Request, server: tuple[str, list[str]]
) -> None:
    folder = run(request_, tmp_path, server[0])
    plan = RunPlan.read(folder)
    everything = keys(folder, plan)
    left = set(everything[3:5])
    assert {task.key for task in tasks(folder, plan, done=set(everything) - left)} == left
    for path in (folder / "contexts" / "oracle").glob("*.parquet"):
        path.unlink()
    assert list(tasks(folder, plan, done=set(everything))) == []


def test_a_refused_question_is_an_error_and_asked_again_by_the_same_command(
    tmp_path: Path, request_: Request, server: tuple[str, list[str]], refusing: Refusing
) -> None:
    url, asked = server
    refused = next(iter(load_questions("sample", None, QUESTIONS))).question
    refusing.words = (refused,)
    folder = run(request_, tmp_path, url)
    errors = [row for row in answers(folder) if row.status is Status.ERROR]
    assert 0 < len(errors) < len(answers(folder)) == QUESTIONS * len(SETTINGS)
    assert {row.raw for row in errors} == {"I refuse this one"}
    failed = Manifest.read(folder / "answers").digest

    before = len(asked)
    assert run(request_, tmp_path, url) == folder
    assert len(asked) - before == len(errors)
    assert all(refused in prompt for prompt in asked[before:])
    assert Manifest.read(folder / "answers").digest == failed, "refused again in the same words: the same run"

    refusing.words = ()
    before = len(asked)
    run(request_, tmp_path, url)
    assert len(asked) - before == len(errors)
    assert {row.status for row in answers(folder)} == {Status.OK}
    before = len(asked)
    run(request_, tmp_path, url)
    assert len(asked) == before, "nothing is left to ask"


def test_a_server_that_refuses_everything_is_one_line_and_the_same_command_continues(
    tmp_path: Path, request_: Request, server: tuple[str, list[str]], refusing: Refusing
) -> None:
    url, asked = server
    refusing.words = ("",)
    many = Request(dataset="sample", limit=4 * FIRST, settings=("no_rag",))
    with pytest.raises(Unavailable) as failure:
        run(many, tmp_path, url)
    assert f"{url}: refused every one of the first {FIRST} requests: I refuse this one. " in str(failure.value)
    assert FIRST <= len(asked) < FIRST + 16
    assert not (only_run(tmp_path) / "answers" / "manifest.json").exists()

    refusing.words = ()
    before = len(asked)
    folder = run(many, tmp_path, url)
    assert len(asked) - before == len(answers(folder))
    assert {row.status for row in answers(folder)} == {Status.OK}


def test_a_small_run_that_is_refused_altogether_does_not_finish(
    tmp_path: Path, request_: Request, server: tuple[str, list[str]], refusing: Refusing
) -> None:
    refusing.words = ("",)
    for _ in range(2):
        with pytest.raises(Unavailable, match=rf"every one of the first {QUESTIONS * len(SETTINGS)} requests"):
            run(request_, tmp_path, server[0])
    assert not (only_run(tmp_path) / "answers" / "manifest.json").exists()


def test_questions_refused_in_a_row_stop_nothing_once_something_was_answered(
    tmp_path: Path, request_: Request, server: tuple[str, list[str]], refusing: Refusing
) -> None:
    many = Request(dataset="sample", limit=2 * FIRST, settings=("no_rag",))
    first = next(iter(tasks(run(many, tmp_path / "order", server[0]), RunPlan.read(only_run(tmp_path / "order")), ())))
    refusing.words = tuple(
        question.question
        for question in load_questions("sample", None, 2 * FIRST)
        if question.question != first.question.question
    )
    folder = run(many, tmp_path / "run", server[0])
    assert Counter(row.status for row in answers(folder))[Status.ERROR] > FIRST
