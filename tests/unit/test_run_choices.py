"""What a run may choose about its prompts: their language, that of gold documents, the order of options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from content_server import content_server, preferred
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from m4rag.bench import benchmark
from m4rag.bench.benchmark import Request
from m4rag.bench.option_order import shown_order
from m4rag.bench.runs import PLAN, RunPlan
from m4rag.bench.scoring import score
from m4rag.datasets import load_documents, load_questions
from m4rag.errors import BadData, UsageError
from m4rag.languages import lookup
from m4rag.manifests import Manifest
from m4rag.progress import silent
from m4rag.schema import Answer, Document, Question, Status
from m4rag.settings import Settings
from m4rag.shards import read_folder, write_folder
from m4rag.vlm import prompts
from m4rag.vlm.prompts import question_template

QUESTIONS = 64
REQUEST = Request(dataset="sample", limit=QUESTIONS, settings=("no_rag",), images="none")


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, list[str]]]:
    with content_server() as given:
        yield given


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "documents"
    write_folder(folder, Document, load_documents("sample"), Manifest(kind="documents", command="test", config={}))
    return folder


def run(request: Request, home: Path, server: tuple[str, list[str]]) -> tuple[Path, list[str]]:
    """The run folder, and the prompts that it took."""
    url, asked = server
    before = len(asked)
    folder = benchmark.run(request, Settings(home=home), nullcontext(url), silent)
    return folder, asked[before:]


def answers(folder: Path) -> dict[tuple[str, str], Answer]:
    return {(row.setting, row.question_id): row for row in read_folder(folder / "answers", Answer)}


def test_a_plan_from_before_these_choices_keeps_its_digest(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    folder, _ = run(REQUEST, tmp_path, server)
    plan = RunPlan.read(folder)
    assert plan.prompts_digest == prompts.digest()
    # The fields that earlier versions wrote, and nothing else, give the digest.
    old = plan.model_dump(mode="json", exclude={"command", "context_language", "option_order"})
    assert plan.digest == benchmark.digest(old)
    assert RunPlan.model_validate(old).digest == plan.digest
    others = [{"context_language": "native"}, {"option_order": 0}, {"option_order": 1}, {"prompt_language": "native"}]
    assert len({plan.model_copy(update=change).digest for change in [{}, *others]}) == 5


def test_native_prompts_are_in_the_language_of_each_question(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    native = replace(REQUEST, prompt_language="native")
    folder, asked = run(native, tmp_path, server)
    plan = RunPlan.read(folder)
    questions = list(read_folder(folder / "questions", Question))
    codes = {lookup(question.language).language.code for question in questions}
    assert len(codes) == 16
    assert plan.prompt_language == "native"
    assert plan.prompts_digest == prompts.digest(codes)
    opening = {code: question_template(code).split("\n")[0] for code in codes}
    assert Counter(prompt.split("\n")[0] for prompt in asked) == Counter(
        opening[lookup(question.language).language.code] for question in questions
    )
    for row in answers(folder).values():
        assert row.prompt_language == lookup(row.question_id.rpartition("-")[2]).language.code
    assert run(native, tmp_path, server) == (folder, [])
    english, asked = run(REQUEST, tmp_path, server)
    assert english != folder
    assert {prompt.split("\n")[0] for prompt in asked} == {opening["en"]}


def test_a_language_without_a_prompt_stops_the_run_before_anything_is_asked(
    tmp_path: Path, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "TEMPLATES", tmp_path)
    asked = len(server[1])
    with pytest.raises(UsageError, match="there is no prompt in"):
        run(replace(REQUEST, prompt_language="native"), tmp_path, server)
    assert len(server[1]) == asked
    assert not (tmp_path / "runs").exists()


def test_m4rag_fault_28_oracle_contexts_in_the_language_of_each_question(
    tmp_path: Path, server: tuple[str, list[str]], corpus: Path
) -> None:
    request = replace(REQUEST, settings=("no_rag", "oracle", "irrelevant"), documents=corpus)
    folder, _ = run(replace(request, context_language="native"), tmp_path, server)
    questions = {question.question_id: question for question in read_folder(folder / "questions", Question)}
    documents = {document.document_id: document for document in load_documents("sample")}
    for (setting, name), row in answers(folder).items():
        if setting == "no_rag":
            assert (row.context_language, row.retrieved) == ("", ())
            continue
        assert row.context_language == questions[name].language
        (shown,) = row.retrieved
        assert documents[shown.chunk_id].language == questions[name].language
        assert (shown.chunk_id.rpartition(":")[0] == questions[name].gold[0]) == (setting == "oracle")
    english, _ = run(request, tmp_path, server)
    assert english != folder
    assert {row.context_language for row in answers(english).values()} == {"", "en"}


def test_gold_documents_that_are_not_there_in_the_language_are_refused(
    tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    english = [document for document in load_documents("sample") if document.language == "en"]
    write_folder(tmp_path / "en", Document, english, Manifest(kind="documents", command="test", config={}))
    request = replace(REQUEST, settings=("oracle",), documents=tmp_path / "en", context_language="native")
    with pytest.raises(BadData, match=r"gold documents are not in the language of their questions.*language en"):
        run(request, tmp_path, server)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_language": "yo"}, "unknown value 'yo' for --prompt-language"),
        ({"context_language": "mixed", "settings": ("oracle",)}, "unknown value 'mixed' for --context-language"),
        ({"context_language": "native"}, "no setting reads any"),
    ],
)
def test_senseless_choices_are_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        benchmark.check(replace(REQUEST, **changes))


def test_a_model_that_answers_by_content_scores_the_same_in_any_order(
    tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    plain, plain_prompts = run(REQUEST, tmp_path, server)
    drawn, drawn_prompts = run(replace(REQUEST, option_order=7), tmp_path, server)
    assert plain != drawn
    assert RunPlan.read(drawn).option_order == 7
    assert sorted(plain_prompts) != sorted(drawn_prompts)
    by_order = {name: row.choice for name, row in answers(plain).items()}
    assert by_order == {name: row.choice for name, row in answers(drawn).items()}
    assert {name: row.raw for name, row in answers(plain).items()} != {
        name: row.raw for name, row in answers(drawn).items()
    }
    (before,), (after,) = benchmark.finish(plain).settings, benchmark.finish(drawn).settings
    about_positions = {"positions", "latency_p50_ms", "latency_p95_ms"}
    assert before.model_dump(exclude=about_positions) == after.model_dump(exclude=about_positions)
    assert before.positions != after.positions
    assert (plain / PLAN).read_bytes() != (drawn / PLAN).read_bytes()


ASKED = load_questions("museum", limit=48)


@given(seed=st.integers() | st.none())
@examples(max_examples=20, deadline=None)
def test_scores_do_not_move_with_the_order_but_positions_do(seed: int | None) -> None:
    by_content, by_position = [], []
    for question in ASKED:
        order = shown_order(seed, question.question_id, len(question.options))
        shown = [question.options[place] for place in order]
        common = {"question_id": question.question_id, "model": "m", "status": Status.OK, "raw": ""}
        by_content.append(Answer(**common, setting="no_rag", choice=order[preferred(shown)]))
        by_position.append(Answer(**common, setting="no_rag", choice=order[0]))
    plain = [
        row.model_copy(update={"choice": preferred(list(q.options))}) for q, row in zip(ASKED, by_content, strict=True)
    ]
    expected = score(ASKED, plain, resamples=20).settings[0].accuracy
    assert score(ASKED, by_content, option_order=seed, resamples=20).settings[0].accuracy == expected
    leaning = score(ASKED, by_position, option_order=seed, resamples=20)
    found = leaning.settings[0].positions
    assert found is not None
    assert found.chosen == (100.0, 0.0, 0.0, 0.0)
    majority = leaning.baselines["majority"]
    assert majority is not None
    assert majority.value == pytest.approx(max(found.right))


@given(seed=st.integers(), name=st.text(max_size=20), n_options=st.integers(2, 8))
def test_an_order_is_a_permutation_that_repeats(seed: int, name: str, n_options: int) -> None:
    order = shown_order(seed, name, n_options)
    assert sorted(order) == list(range(n_options))
    assert order == shown_order(seed, name, n_options)
    assert shown_order(None, name, n_options) == tuple(range(n_options))


def test_m4rag_fault_22_every_option_is_shown_at_every_position_equally_often() -> None:
    orders = [shown_order(1, str(number), 4) for number in range(24_000)]
    counts = Counter(orders)
    assert len(counts) == 24
    # Expected 1,000 each; 5 standard deviations are 155.
    assert all(abs(count - 1000) < 155 for count in counts.values())
    assert shown_order(3, "q", 4) != shown_order(4, "q", 4) or shown_order(3, "r", 4) != shown_order(4, "r", 4)


def test_the_order_is_the_same_on_every_machine() -> None:
    assert [shown_order(seed, "taco-yo", 4) for seed in (0, 1, 2)] == [(2, 1, 3, 0), (1, 0, 2, 3), (0, 3, 2, 1)]
