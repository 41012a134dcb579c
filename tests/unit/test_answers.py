"""The answer log: nothing lost, nothing doubled, whatever the moment of a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from m4rag.bench.answers import LOG, AnswerLog
from m4rag.errors import BadData, Unavailable
from m4rag.manifests import Manifest
from m4rag.schema import Answer, Status

MADE_BY = Manifest(kind="answers", command="test")


def answer(question: str, setting: str = "no_rag", latency: float = 1.0) -> Answer:
    return Answer(
        question_id=question, setting=setting, model="m", status=Status.OK, choice=0, raw="ጤፍ", latency_ms=latency
    )


@pytest.mark.parametrize("torn", [1, 20, 60])
def test_a_line_torn_by_a_crash_is_dropped_and_the_rest_kept(tmp_path: Path, torn: int) -> None:
    with AnswerLog(tmp_path) as log:
        log.append([answer("a"), answer("b")])
    path = tmp_path / LOG
    path.write_bytes(path.read_bytes()[:-torn])
    assert list(AnswerLog(tmp_path).read()) == [("no_rag", "a")]
    with AnswerLog(tmp_path) as log:
        log.append([answer("b"), answer("c")])
    assert list(AnswerLog(tmp_path).read()) == [("no_rag", "a"), ("no_rag", "b"), ("no_rag", "c")]


def test_the_finished_log_is_the_same_whatever_the_order_of_arrival(tmp_path: Path) -> None:
    order = [("no_rag", "a"), ("no_rag", "b"), ("oracle", "a")]
    rows = [answer("a"), answer("b"), answer("a", "oracle")]
    with AnswerLog(tmp_path / "one") as log:
        log.append(rows)
    with AnswerLog(tmp_path / "two") as log:
        for row in reversed(rows):
            log.append([row.model_copy(update={"latency_ms": 7.0})])
    one = AnswerLog(tmp_path / "one").finish(order, MADE_BY)
    two = AnswerLog(tmp_path / "two").finish(order, MADE_BY)
    assert one.digest == two.digest
    assert not (tmp_path / "one" / LOG).exists()
    assert list(AnswerLog(tmp_path / "two").read()) == order


def test_a_doubled_or_missing_answer_is_refused(tmp_path: Path) -> None:
    with AnswerLog(tmp_path) as log:
        log.append([answer("a"), answer("a")])
    with pytest.raises(BadData, match="answered twice"):
        AnswerLog(tmp_path).read()
    with AnswerLog(tmp_path / "short") as log:
        log.append([answer("a")])
    with pytest.raises(BadData, match=r"1 answers missing, first \('no_rag', 'b'\)"):
        AnswerLog(tmp_path / "short").finish([("no_rag", "a"), ("no_rag", "b")], MADE_BY)


def test_garbage_in_the_middle_is_named_not_skipped(tmp_path: Path) -> None:
    with AnswerLog(tmp_path) as log:
        log.append([answer("a")])
    with (tmp_path / LOG).open("ab") as stream:
        stream.write(b'{"what": 1}\n')
    with pytest.raises(BadData, match=r"log.jsonl line 2"):
        AnswerLog(tmp_path).read()


def test_a_full_disk_is_one_error_and_keeps_what_was_written(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with AnswerLog(tmp_path) as log:
        log.append([answer("a")])
        room = (tmp_path / LOG).stat().st_size + 20
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(Unavailable, match=r"log\.jsonl: can't be written: .*it continues"):
                log.append([answer("b")])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(AnswerLog(tmp_path).read()) == [("no_rag", "a")]


def test_a_run_stops_asking_when_answers_cannot_be_kept(tmp_path: Path) -> None:
    import asyncio
    import resource

    from m4rag.durable import work

    asked: list[str] = []

    async def ask(question: str) -> Answer:
        asked.append(question)
        await asyncio.sleep(0.01)
        return answer(question)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(Unavailable, match="can't be written"):
            asyncio.run(work(map(str, range(10_000)), ask, AnswerLog(tmp_path), 4, lambda _: None))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 0 < len(asked) < 100
    assert len(AnswerLog(tmp_path).read()) >= 1
