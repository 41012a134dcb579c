"""Judging a run over HTTP on the loopback: every passage asked about once, whatever dies."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from run_folders import write_run
from typer.testing import CliRunner

from m4rag import durable
from m4rag.bench import judge
from m4rag.bench.judge import judge_run
from m4rag.bench.judgements import JUDGEMENTS, Sampling, pairs, read_scores, read_verdicts
from m4rag.bench.relevance import write_relevance
from m4rag.bench.runs import Judgement, Passage, RunPlan
from m4rag.cli import app
from m4rag.errors import BadData, Unavailable, UsageError
from m4rag.manifests import Manifest
from m4rag.progress import silent
from m4rag.settings import Settings
from m4rag.shards import read_folder, write_folder
from m4rag.vlm.prompts import judge_schema

Reply = Callable[[str], str | None]


def score_of(prompt: str) -> int:
    """What the server's judge thinks: as the real one it depends on the prompt alone."""
    return 1 + sum(prompt.encode()) % 5


def verdict(prompt: str) -> str:
    return json.dumps({"explanation": "So.", "answer": score_of(prompt)})


class Server:
    """An OpenAI-compatible server in a thread; `reply` gives the words for a prompt, None for HTTP 500.

    `by_seed`, where it is set, does so for a prompt and the seed of the request; `refuses` says which get HTTP 400.
    """

    def __init__(self) -> None:
        self.name = "judge-32b"
        self.reply: Reply = verdict
        self.by_seed: Callable[[str, int], str | None] | None = None
        self.refuses: Callable[[str], bool] = lambda prompt: False
        self.requests: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._runner: Any = None
        self.url = ""

    @property
    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"][-1]["text"] for request in self.requests]

    def start(self) -> None:
        ready = threading.Event()

        async def serve() -> None:
            app = web.Application(client_max_size=1 << 24)
            app.router.add_get("/v1/models", self._models)
            app.router.add_post("/v1/chat/completions", self._completions)
            self._runner = web.AppRunner(app)
            await self._runner.setup()
            site = web.TCPSite(self._runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
            ready.set()

        def run() -> None:
            self._loop.run_until_complete(serve())
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": self.name, "root": f"/models/{self.name}", "max_model_len": 4096}]})

    async def _completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        prompt = body["messages"][0]["content"][-1]["text"]
        if self.refuses(prompt):
            return web.json_response({"error": {"message": "I refuse this one"}}, status=400)
        said = self.reply(prompt) if self.by_seed is None else self.by_seed(prompt, body["seed"])
        if said is None:
            return web.json_response({"error": {"message": "out of memory"}}, status=500)
        self.requests.append(body)
        return web.json_response({"choices": [{"message": {"content": said}, "finish_reason": "stop"}]})


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Scoring and the report are tested elsewhere and take longer than all that is tested here.
    monkeypatch.setattr(judge, "finish", write_relevance)
    write_run(tmp_path / "run", settings=("no_rag", "oracle", "caption_query"))
    return tmp_path / "run"


def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, vlm_concurrency=4)


def rows(run: Path) -> list[Judgement]:
    return list(read_folder(run / JUDGEMENTS, Judgement))


def test_m4rag_fault_04_every_passage_that_was_shown_is_judged_once(run: Path, server: Server) -> None:
    relevance = judge_run(run, settings(run), server.url, silent)
    wanted = pairs(run, RunPlan.read(run))
    assert len(server.requests) == len(wanted)
    assert Counter((row.question_id, row.chunk_id) for row in rows(run)) == Counter(
        (pair.question.question_id, chunk) for pair in wanted for chunk in pair.chunk_ids
    )
    assert {row.with_answer for row in rows(run)} == {True}
    assert {row.model for row in rows(run)} == {relevance.judge.name} == {"judge-32b"}
    assert relevance.pairs == len(rows(run))
    assert relevance.failed == {}


def test_the_same_text_under_two_ids_is_judged_once_and_kept_under_both(run: Path, server: Server) -> None:
    passages = list(read_folder(run / "passages", Passage))
    same = [passage.model_copy(update={"text": f"In {passage.language}."}) for passage in passages]
    write_folder(run / "passages", Passage, same, Manifest(kind="passages", command="test"))
    wanted = pairs(run, RunPlan.read(run))
    assert {pair.passage for pair in wanted} == {passage.text for passage in same}
    judge_run(run, settings(run), server.url, silent)
    assert len(server.requests) == len(wanted)
    assert len(rows(run)) == sum(len(pair.chunk_ids) for pair in wanted) > len(wanted)
    by_text = {(row.question_id, row.chunk_id): row.score for row in rows(run)}
    for pair in wanted:
        assert len({by_text[pair.question.question_id, chunk] for chunk in pair.chunk_ids}) == 1


def test_m4rag_fault_04_the_judge_is_held_to_its_own_schema(run: Path, server: Server) -> None:
    judge_run(run, settings(run), server.url, silent)
    request = server.requests[0]
    picture, text = request["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert request["response_format"]["json_schema"]["schema"] == judge_schema()
    assert request["temperature"] == 0
    assert all("### Correct Answer\n" in prompt for prompt in server.prompts)
    english = next(prompt for prompt in server.prompts if "What can be seen" in prompt)
    assert "### Correct Answer\ntea\n" in english
    assert text["text"] == server.prompts[0]


def test_a_judge_that_is_not_told_the_answer_replaces_one_that_is(run: Path, server: Server) -> None:
    judge_run(run, settings(run), server.url, silent)
    asked = len(server.requests)
    relevance = judge_run(run, settings(run), server.url, silent, with_answer=False)
    assert not relevance.with_answer
    assert len(server.requests) == 2 * asked
    assert not any("Correct Answer" in prompt for prompt in server.prompts[asked:])
    assert {row.with_answer for row in rows(run)} == {False}
    assert [path.name for path in (run / JUDGEMENTS).glob("log-*")] == []


def test_m4rag_fault_04_judge_resume_keeps_every_chunk(run: Path, server: Server) -> None:
    left = iter(range(100))
    server.reply = lambda prompt: verdict(prompt) if next(left, None) is not None else None
    with pytest.raises(Unavailable, match="out of memory"):
        judge_run(run, settings(run), server.url, silent)
    assert not (run / JUDGEMENTS / "manifest.json").exists()
    said = len(server.requests)
    assert said == 100
    (log,) = (run / JUDGEMENTS).glob("log-*")
    kept = log.read_bytes().count(b"\n")
    assert said - 4 <= kept <= said
    with log.open("ab") as stream:
        stream.write(b'{"question_id": "torn')

    server.reply = verdict
    shown: list[tuple[int | None, int]] = []

    def progress(label: str, total: int | None, done: int = 0) -> Any:
        shown.append((total, done))
        return silent(label, total, done)

    judge_run(run, settings(run), server.url, progress)
    wanted = len(pairs(run, RunPlan.read(run)))
    assert len(server.requests) - said == wanted - kept
    assert shown == [(wanted, kept)]
    assert {row.status.value for row in rows(run)} == {"ok"}


def test_what_failed_is_kept_as_a_failure_and_asked_again(run: Path, server: Server) -> None:
    server.reply = lambda prompt: "I would say four." if "tea" in prompt else verdict(prompt)
    first = judge_run(run, settings(run), server.url, silent)
    failed = [row for row in rows(run) if row.status.value == "unparsable"]
    assert first.failed == {"unparsable": len(failed)}
    assert {(row.score, row.raw) for row in failed} == {(None, "I would say four.")}
    digest, asked = Manifest.read(run / JUDGEMENTS).digest, len(server.requests)

    server.reply = verdict
    second = judge_run(run, settings(run), server.url, silent)
    again = server.prompts[asked:]
    assert 0 < len(again) <= len(failed)
    assert all("tea" in prompt for prompt in again)
    assert second.failed == {}
    assert Manifest.read(run / JUDGEMENTS).digest != digest

    judge_run(run, settings(run), server.url, silent)
    assert len(server.requests) == asked + len(again)


def test_m4rag_fault_32_a_refused_request_is_one_error_and_stops_nothing(run: Path, server: Server) -> None:
    server.refuses = lambda prompt: "### Correct Answer\ntea\n" in prompt
    relevance = judge_run(run, settings(run), server.url, silent)
    refused = [row for row in rows(run) if row.status.value == "error"]
    assert 0 < len(refused) < len(rows(run))
    assert {(row.score, row.raw) for row in refused} == {(None, "I refuse this one")}
    assert relevance.failed == {"error": len(refused)}


def test_a_crash_while_old_judgements_are_replaced_loses_none(
    run: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.reply = lambda prompt: "?" if "tea" in prompt else verdict(prompt)
    judge_run(run, settings(run), server.url, silent)
    server.reply = verdict

    def crash(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(durable, "write_folder", crash)
        with pytest.raises(KeyboardInterrupt):
            judge_run(run, settings(run), server.url, silent)
    assert not (run / JUDGEMENTS / "manifest.json").exists()
    asked = len(server.requests)
    relevance = judge_run(run, settings(run), server.url, silent)
    assert len(server.requests) == asked
    assert relevance.failed == {}


def test_the_order_in_which_the_judge_answers_leaves_no_trace(run: Path, server: Server) -> None:
    judge_run(run, settings(run), server.url, silent)
    one = Manifest.read(run / JUDGEMENTS).digest
    for path in (run / JUDGEMENTS).iterdir():
        path.unlink()
    judge_run(run, Settings(home=run, vlm_concurrency=1), server.url, silent)
    assert Manifest.read(run / JUDGEMENTS).digest == one


FIVE = Sampling(5, 0.7)


def drawn(prompt: str, seed: int) -> str:
    """A judge that is of two minds: what `score_of` says for three seeds, one away from it for two."""
    score = score_of(prompt)
    away = score - 1 if score == 5 else score + 1
    return json.dumps({"explanation": "So.", "answer": score if seed in (0, 2, 4) else away})


def test_m4rag_fault_19_the_score_is_the_median_of_seeded_samples_and_all_are_kept(run: Path, server: Server) -> None:
    server.by_seed = drawn
    relevance = judge_run(run, settings(run), server.url, silent, sampling=FIVE)
    wanted = pairs(run, RunPlan.read(run))
    assert len(server.requests) == 5 * len(wanted)
    assert {request["temperature"] for request in server.requests} == {0.7}
    asked = Counter((prompt, request["seed"]) for prompt, request in zip(server.prompts, server.requests, strict=True))
    assert {seed for _, seed in asked} == {0, 1, 2, 3, 4}
    assert {row.sample for row in rows(run)} == {0, 1, 2, 3, 4}
    scores = read_scores(run)
    assert len(scores) == len(rows(run)) / 5 == relevance.pairs
    by_sample = {(row.question_id, row.chunk_id, row.sample): row.score for row in rows(run)}
    for (question, chunk), score in scores.items():
        given = [by_sample[question, chunk, sample] for sample in range(5)]
        assert score == sorted(given)[2] == given[0]  # type: ignore[type-var]
    found = relevance.consistency
    assert found is not None
    assert (found.samples, found.temperature, found.failed) == (5, 0.7, 0)
    assert found.unanimous == 0
    assert found.spread == pytest.approx(0.6)  # of ten pairs of samples six are one apart
    assert found.agreement.value is not None
    assert 0 < found.agreement.value < 1
    assert "judged 5 times at temperature 0.7" in found.words


def test_a_judge_that_dies_between_two_samples_is_asked_for_the_others_only(run: Path, server: Server) -> None:
    left = iter(range(103))
    server.by_seed = lambda prompt, seed: drawn(prompt, seed) if next(left, None) is not None else None
    with pytest.raises(Unavailable, match="out of memory"):
        judge_run(run, settings(run), server.url, silent, sampling=FIVE)
    (log,) = (run / JUDGEMENTS).glob("log-*")
    kept, said = log.read_bytes().count(b"\n"), len(server.requests)
    server.by_seed = drawn
    judge_run(run, settings(run), server.url, silent, sampling=FIVE)
    assert len(server.requests) - said == 5 * len(pairs(run, RunPlan.read(run))) - kept
    interrupted = Manifest.read(run / JUDGEMENTS).digest
    for path in (run / JUDGEMENTS).iterdir():
        path.unlink()
    judge_run(run, settings(run), server.url, silent, sampling=FIVE)
    assert Manifest.read(run / JUDGEMENTS).digest == interrupted


def test_several_samples_are_another_judgement_than_one(run: Path, server: Server) -> None:
    identities = {}
    for sampling in (Sampling(), FIVE, Sampling(3, 0.7), Sampling(3, 1.0)):
        judge_run(run, settings(run), server.url, silent, sampling=sampling)
        identities[sampling] = Manifest.read(run / JUDGEMENTS).identity
        assert Sampling.of(Manifest.read(run / JUDGEMENTS)) == sampling
    assert len(set(identities.values())) == 4
    once = judge_run(run, settings(run), server.url, silent)
    assert once.consistency is None


@pytest.mark.parametrize(
    ("statuses", "score", "status"),
    [
        ((5, 4, 4, None, None), 4, "ok"),
        ((5, 4, 4, 2, None), 4, "ok"),  # of the two in the middle the lower
        ((5, 5, 2, 3, None), 3, "ok"),
        ((5, 4, None, None, None), None, "unparsable"),
        ((None,) * 5, None, "unparsable"),
    ],
)
def test_more_than_half_of_the_samples_must_have_a_score(
    run: Path, server: Server, statuses: tuple[int | None, ...], score: int | None, status: str
) -> None:
    server.by_seed = lambda prompt, seed: (
        "I would not say." if statuses[seed] is None else json.dumps({"explanation": "", "answer": statuses[seed]})
    )
    relevance = judge_run(run, settings(run), server.url, silent, sampling=FIVE)
    verdicts = read_verdicts(run)
    assert {verdict.score for verdict in verdicts.values()} == {score}
    assert {verdict.status.value for verdict in verdicts.values()} == {status}
    assert relevance.failed == ({} if status == "ok" else {status: len(verdicts)})


def test_judgements_of_an_earlier_version_are_read_and_not_asked_for_again(run: Path, server: Server) -> None:
    judge_run(run, settings(run), server.url, silent)
    asked, kept = len(server.requests), rows(run)
    for path in (run / JUDGEMENTS).glob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["sample"]), path)
    assert rows(run) == kept
    relevance = judge_run(run, settings(run), server.url, silent)
    assert len(server.requests) == asked
    assert relevance.pairs == len(kept)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--samples", "4"], "4 samples have no middle one"),
        (["--samples", "0"], "0 samples have no middle one"),
        (["--temperature", "0.7"], "a single sample is greedy"),
        (["--samples", "5", "--temperature", "0"], "samples at temperature 0 say nothing"),
    ],
)
def test_senseless_samples_are_refused(run: Path, options: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        CliRunner().invoke(app, ["bench", "judge", str(run), *options], catch_exceptions=False)


def test_a_run_without_context_cannot_be_judged(tmp_path: Path) -> None:
    write_run(tmp_path, settings=("no_rag",))
    with pytest.raises(UsageError, match="nothing to judge"):
        judge_run(tmp_path, settings(tmp_path), "http://127.0.0.1:1/v1", silent)


def test_the_whole_way_ends_in_a_report(tmp_path: Path, server: Server) -> None:
    write_run(tmp_path, settings=("no_rag", "caption_query"))
    judge_run(tmp_path, settings(tmp_path), server.url, silent)
    assert "Does relevance decide?" in (tmp_path / "report.html").read_text()


def test_the_command_says_both_rates_and_where_the_report_is(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m4rag.settings.settings", lambda: settings(tmp_path))
    recorded: list[Path] = []
    monkeypatch.setattr("m4rag.cli.record.record_run", lambda run, _: recorded.append(run) or {"url": "x"})
    write_run(tmp_path / "run")
    command = ["bench", "judge", str(tmp_path / "run"), "--vlm-url", server.url, "--answer", "hidden"]
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert told["relevance"]["with_answer"] is False
    assert told["relevance"]["judge"]["name"] == "judge-32b"
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0
    assert "caption_query" in shown.stdout
    assert f"report  {tmp_path / 'run' / 'report.html'}" in shown.stdout
    assert recorded == [tmp_path / "run"] * 2


def test_a_folder_that_cannot_be_judged_starts_no_server(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="not a benchmark run"):
        CliRunner().invoke(app, ["bench", "judge", str(tmp_path)], catch_exceptions=False)
