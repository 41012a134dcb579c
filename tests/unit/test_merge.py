"""Runs of parts of a benchmark become one run: the undivided one, or one line that says why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from content_server import content_server
from hypothesis import given
from hypothesis import strategies as st
from run_folders import write_run

from m4rag import datasets
from m4rag.bench import benchmark
from m4rag.bench import merge as merging
from m4rag.bench.benchmark import Request
from m4rag.bench.joined import read_scores
from m4rag.bench.judgements import pairs
from m4rag.bench.merge import in_one_order, merge
from m4rag.bench.runs import Passage, RunPlan
from m4rag.datasets import load_documents, load_questions
from m4rag.errors import BadData, M4ragError, UsageError
from m4rag.manifests import Manifest, rows_digest
from m4rag.policy.fit import fit
from m4rag.progress import silent
from m4rag.schema import Answer, Document, Question, Row, Status
from m4rag.settings import Settings
from m4rag.shards import read_folder, write_folder

QUESTIONS = load_questions("sample", None, 48)


class Benchmark:
    """Asks a scripted model any of the questions; it refuses the prompts that hold one of the words."""

    def __init__(self, home: Path, url: str, request: Request, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused: list[str] = []
        self.url = url
        self._home = home
        self._request = request
        self._monkeypatch = monkeypatch

    def __call__(self, questions: Sequence[Question] = QUESTIONS, **choices: object) -> Path:
        self._monkeypatch.setattr(datasets, "load_questions", lambda *given: list(questions))
        request = replace(self._request, **choices)  # type: ignore[arg-type]
        return benchmark.run(request, Settings(home=self._home), nullcontext(self.url), silent)


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Benchmark]:
    for module in (benchmark, merging):  # scoring and the report take longer than all that is tested with this
        monkeypatch.setattr(module, "finish", lambda folder: None)
    documents = tmp_path / "documents"
    write_folder(documents, Document, load_documents("sample"), Manifest(kind="documents", command="test"))
    request = Request(dataset="sample", settings=("no_rag", "oracle"), documents=documents)
    refused: list[str] = []
    with content_server(lambda prompt: any(word in prompt for word in refused)) as (url, _):
        made = Benchmark(tmp_path, url, request, monkeypatch)
        made.refused = refused
        yield made


def answers(folder: Path) -> Manifest:
    return Manifest.read(folder / "answers")


def rewrite(folder: Path, name: str, model: type[Row], change: Callable[[Row], Row]) -> None:
    rows = [change(row) for row in read_folder(folder / name, model)]
    write_folder(folder / name, model, rows, Manifest(kind=name, command="test", inputs={"changed": rows_digest(rows)}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (QUESTIONS[:20], QUESTIONS[20:]),
        (QUESTIONS[::2], QUESTIONS[1::2]),
        (QUESTIONS[:30], QUESTIONS[10:]),
        (QUESTIONS[5:25], QUESTIONS),
    ],
    ids=["disjoint", "interleaved", "overlapping", "nested"],
)
def test_the_answers_of_parts_are_those_of_the_undivided_run(
    tmp_path: Path, ask: Benchmark, one: Sequence[Question], other: Sequence[Question]
) -> None:
    whole, parts = ask(), [ask(one), ask(other)]
    merged = merge(parts, tmp_path / "merged")
    assert answers(merged).digest == answers(whole).digest
    plan, undivided = RunPlan.read(merged), RunPlan.read(whole)
    differs = {"inputs", "command"}
    assert plan.model_dump(exclude=differs) == undivided.model_dump(exclude=differs)
    assert {RunPlan.read(part).digest for part in parts} <= set(plan.inputs.values())
    for name, model in (("questions", Question), ("passages", Passage)):
        assert rows_digest(read_folder(merged / name, model)) == rows_digest(read_folder(whole / name, model))
    assert answers(merged).counts["finished"] == max(answers(part).counts["finished"] for part in parts)


def test_settings_that_were_run_apart_are_one_run(tmp_path: Path, ask: Benchmark) -> None:
    whole = ask(settings=("no_rag", "oracle", "irrelevant"), context_language="native")
    # Without gold documents there is no language of context to choose, so the parts need not agree in it.
    parts = [ask(settings=("no_rag",)), ask(settings=("oracle", "irrelevant"), context_language="native")]
    merged = merge(parts, tmp_path / "merged")
    assert answers(merged).digest == answers(whole).digest
    assert RunPlan.read(merged).settings == ("no_rag", "oracle", "irrelevant")
    assert RunPlan.read(merged).context_language == "native"


def test_native_prompts_in_other_languages_are_the_prompts_of_the_undivided_run(tmp_path: Path, ask: Benchmark) -> None:
    languages = sorted({question.language for question in QUESTIONS})
    halves = [
        [question for question in QUESTIONS if (question.language in languages[::2]) == first]
        for first in (True, False)
    ]
    parts = [ask(half, prompt_language="native", settings=("no_rag",)) for half in halves]
    plans = [RunPlan.read(part) for part in parts]
    assert plans[0].prompts_digest != plans[1].prompts_digest
    whole = RunPlan.read(ask(prompt_language="native", settings=("no_rag",)))
    assert RunPlan.read(merge(parts, tmp_path / "merged")).prompts_digest == whole.prompts_digest

    plans[1].model_copy(update={"prompts_digest": "0" * 64}).write(parts[1])
    with pytest.raises(UsageError, match="differ in their prompts") as failure:
        merge(parts, tmp_path / "other")
    assert str(parts[1]) in str(failure.value)


@pytest.mark.parametrize("order", [1, -1])
def test_an_answer_wins_over_an_error(tmp_path: Path, ask: Benchmark, order: int) -> None:
    whole = ask()
    ask.refused.append(QUESTIONS[3].question)
    failed = ask(QUESTIONS[:10])
    errors = {row.question_id for row in read_folder(failed / "answers", Answer) if row.status is Status.ERROR}
    assert QUESTIONS[3].question_id in errors
    merged = merge([failed, whole][::order], tmp_path / "merged")
    assert answers(merged).digest == answers(whole).digest

    rest = [question for question in QUESTIONS if question.question_id not in errors]
    kept = merge([failed, ask(rest)][::order], tmp_path / "kept")
    still = {row.question_id for row in read_folder(kept / "answers", Answer) if row.status is Status.ERROR}
    assert still == errors, "where nobody has an answer the error stays"


def test_two_different_answers_to_one_question_are_refused(tmp_path: Path, ask: Benchmark) -> None:
    parts = [ask(QUESTIONS[:30]), ask(QUESTIONS[10:])]
    name = QUESTIONS[12].question_id

    def other(row: Row) -> Row:
        assert isinstance(row, Answer)
        return row.model_copy(update={"raw": "?"}) if (row.setting, row.question_id) == ("oracle", name) else row

    def slower(row: Row) -> Row:
        return row.model_copy(update={"latency_ms": 1e6})

    rewrite(parts[0], "answers", Answer, slower)
    merge(parts, tmp_path / "slower")
    rewrite(parts[1], "answers", Answer, other)
    with pytest.raises(BadData) as failure:
        merge(parts, tmp_path / "merged")
    assert f"question {name} has two answers in oracle: in {parts[0]} and in {parts[1]}" in str(failure.value)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("name", "model", "change"),
    [
        ("questions", Question, {"answer_index": 3}),
        ("passages", Passage, {"text": "Something else."}),
    ],
)
def test_what_has_the_same_name_must_be_the_same(
    tmp_path: Path, ask: Benchmark, name: str, model: type[Row], change: dict[str, object]
) -> None:
    parts = [ask(QUESTIONS[:30]), ask(QUESTIONS[10:])]
    rewrite(parts[1], name, model, lambda row: row.model_copy(update={"image": "/elsewhere.png"}))
    merge(parts, tmp_path / "moved")
    rewrite(parts[1], name, model, lambda row: row.model_copy(update=change))
    with pytest.raises(BadData, match=rf"{name.removesuffix('s')} \S+ is another one than in the runs before"):
        merge(parts, tmp_path / "merged")
    assert [path.name for path in tmp_path.glob("*merged*")] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"weights_digest": "abc"}}, r"differ in model weights_digest: '\w+' in .*, 'abc' in "),
        ({"decoding": {"max_tokens": 9}}, "differ in decoding max_tokens: 128 in .*, 9 in "),
        ({"decoding": {"top_k": 9}}, "differ in choices of decoding: .*'top_k'"),
        ({"prompts_digest": "0" * 64}, "differ in their prompts"),
        ({"dataset": "museum"}, "differ in dataset: 'sample' in .*, 'museum' in "),
        ({"images": "none"}, "differ in images"),
        ({"option_order": 1}, "differ in option order"),
        ({"indexes": {"caption_query": {"digest": "abc"}}}, "differ in text index digest"),
        ({"k": 4}, "differ in k: 3 in .*, 4 in "),
        ({"context_language": "native"}, "differ in context language"),
        ({"inputs": {"images": "abc"}}, "differ in the pictures of the questions"),
    ],
)
def test_runs_of_other_plans_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    plan = write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    values = plan.model_dump()
    for name, change in changes.items():
        values[name] = _updated(values[name], change)
    RunPlan.model_validate(values).write(tmp_path / "b")
    with pytest.raises(UsageError, match=message):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")


def _updated(value: object, change: object) -> object:
    if isinstance(value, dict) and isinstance(change, dict):
        return {**value, **{name: _updated(value.get(name), each) for name, each in change.items()}}
    return change


def test_answers_that_no_run_has_are_named(tmp_path: Path, ask: Benchmark) -> None:
    parts = [ask(QUESTIONS[:30], settings=("no_rag",)), ask(QUESTIONS[20:])]
    with pytest.raises(BadData, match=rf"lack 20 of the answers, first oracle {QUESTIONS[0].question_id}\b"):
        merge(parts, tmp_path / "merged")


def test_the_output_is_made_once_and_nothing_else_is_touched(tmp_path: Path, ask: Benchmark) -> None:
    parts = [ask(QUESTIONS[:30]), ask(QUESTIONS[10:])]
    merged = merge(parts, tmp_path / "merged")
    written = (merged / "answers" / "manifest.json").stat().st_mtime_ns
    merge(parts, merged)
    assert (merged / "answers" / "manifest.json").stat().st_mtime_ns == written
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    for taken in (parts[0], tmp_path / "notes", tmp_path / "notes" / "mine.txt"):
        with pytest.raises(UsageError, match="there is something else already"):
            merge(parts, taken)
    with pytest.raises(UsageError, match="something else"):
        merge(parts[::-1], merged)
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep"
    for few in (parts[:1], [parts[0], parts[0]]):
        with pytest.raises(UsageError, match="two runs or more"):
            merge(few, tmp_path / "few")


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path, ask: Benchmark) -> None:
    parts = [ask(QUESTIONS[:30]), ask(QUESTIONS[10:])]
    (parts[1] / "answers" / "manifest.json").unlink()
    with pytest.raises(M4ragError, match="has not finished"):
        merge(parts, tmp_path / "merged")


def test_a_merged_run_is_scored_reported_judged_and_learned_from_as_any_other(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    plan = write_run(whole)
    benchmark.finish(whole)
    names = [question.question_id for question in read_folder(whole / "questions", Question)]
    parts = []
    for number, kept in enumerate((set(names[::3]), set(names) - set(names[::3]))):
        part = tmp_path / str(number)
        parts.append(part)
        questions = [row for row in read_folder(whole / "questions", Question) if row.question_id in kept]
        shown = [row for row in read_folder(whole / "answers", Answer) if row.question_id in kept]
        made_by = Manifest(kind="test", command="test")
        write_folder(part / "questions", Question, questions, made_by)
        write_folder(part / "answers", Answer, shown, made_by)
        write_folder(part / "passages", Passage, read_folder(whole / "passages", Passage), made_by)
        changes = {"questions_digest": rows_digest(questions), "n_questions": len(questions)}
        plan.model_copy(update=changes).write(part)
    merged = merge(parts, tmp_path / "merged")
    assert answers(merged).digest == answers(whole).digest
    assert read_scores(merged) == read_scores(whole)
    assert (merged / "report.html").exists()
    assert {pair.key for pair in pairs(merged, RunPlan.read(merged))} == {pair.key for pair in pairs(whole, plan)}
    assert fit(merged, "caption_query").evidence == fit(whole, "caption_query").evidence


NAMES = st.lists(st.integers(0, 99).map(str), unique=True)


@given(names=NAMES, chosen=st.data())
def test_parts_that_overlap_keep_the_order_of_the_whole(names: list[str], chosen: st.DataObject) -> None:
    inside = [name for name in names if chosen.draw(st.booleans())]
    assert in_one_order([inside, names]) == in_one_order([names, inside]) == names
    cut, back = sorted(chosen.draw(st.integers(0, len(names))) for _ in range(2))[::-1]
    assert in_one_order([names[:cut], names[back:]]) == names
    if back < cut:
        assert in_one_order([names[back:], names[:cut]]) == names


@given(sequences=st.lists(NAMES))
def test_every_name_is_there_once_and_the_first_order_stays(sequences: list[list[str]]) -> None:
    merged = in_one_order(sequences)
    assert sorted(merged) == sorted({name for sequence in sequences for name in sequence})
    if sequences:
        assert [name for name in merged if name in sequences[0]] == sequences[0]
