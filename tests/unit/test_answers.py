"""The answer log: nothing lost, nothing doubled, whatever the moment of a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from m4rag import durable, shards
from m4rag.bench.answers import LOG, AnswerLog
from m4rag.durable import BLOCK
from m4rag.errors import BadData, Unavailable, UsageError
from m4rag.manifests import Manifest
from m4rag.schema import Answer, Status
from m4rag.shards import read_folder, write_rows

MADE_BY = Manifest(kind="answers", command="test")


def answer(question: str, setting: str = "no_rag", latency: float = 1.0) -> Answer:
    return Answer(
        question_id=question, setting=setting, model="m", status=Status.OK, choice=0, raw="ጤፍ", latency_ms=latency
    )


def log_in(folder: Path) -> AnswerLog:
    return AnswerLog(folder, MADE_BY)


def error(question: str, reason: str = "too long") -> Answer:
    return Answer(question_id=question, setting="no_rag", model="m", status=Status.ERROR, raw=reason)


@pytest.mark.parametrize("torn", [1, 20, 60])
def test_m4rag_fault_15_a_line_torn_by_a_crash_is_dropped_and_the_rest_kept(tmp_path: Path, torn: int) -> None:
    with log_in(tmp_path) as log:
        log.append([answer("a"), answer("b")])
    path = tmp_path / LOG
    path.write_bytes(path.read_bytes()[:-torn])
    assert log_in(tmp_path).done() == {("no_rag", "a")}
    with log_in(tmp_path) as log:
        log.append([answer("b"), answer("c")])
    assert log_in(tmp_path).done() == {("no_rag", "a"), ("no_rag", "b"), ("no_rag", "c")}


def test_a_torn_line_longer_than_a_block_is_dropped(tmp_path: Path) -> None:
    with log_in(tmp_path) as log:
        log.append([answer("a")])
    with (tmp_path / LOG).open("ab") as stream:
        stream.write(b"x" * (3 * BLOCK))
    with log_in(tmp_path) as log:
        log.append([answer("b")])
    assert (tmp_path / LOG).read_bytes().count(b"\n") == 2
    assert log_in(tmp_path).done() == {("no_rag", "a"), ("no_rag", "b")}


def test_the_finished_log_is_the_same_whatever_the_order_of_arrival(tmp_path: Path) -> None:
    order = [("no_rag", "a"), ("no_rag", "b"), ("oracle", "a")]
    rows = [answer("a"), answer("b"), answer("a", "oracle")]
    with log_in(tmp_path / "one") as log:
        log.append(rows)
    with log_in(tmp_path / "two") as log:
        for row in reversed(rows):
            log.append([row.model_copy(update={"latency_ms": 7.0})])
    one = log_in(tmp_path / "one").complete(order)
    two = log_in(tmp_path / "two").complete(order)
    assert one.digest == two.digest
    assert not (tmp_path / "one" / LOG).exists()
    assert [(row.setting, row.question_id) for row in read_folder(tmp_path / "two", Answer)] == order
    assert log_in(tmp_path / "two").done() == set(order)


def test_a_doubled_or_missing_answer_is_refused(tmp_path: Path) -> None:
    with log_in(tmp_path) as log:
        log.append([answer("a"), answer("a")])
    with pytest.raises(BadData, match="no_rag a: two results"):
        log_in(tmp_path).done()
    with log_in(tmp_path / "short") as log:
        log.append([answer("a")])
    with pytest.raises(BadData, match="1 rows missing, first no_rag b"):
        log_in(tmp_path / "short").complete([("no_rag", "a"), ("no_rag", "b")])


def test_m4rag_fault_15_garbage_in_the_middle_is_named_not_skipped(tmp_path: Path) -> None:
    with log_in(tmp_path) as log:
        log.append([answer("a")])
    with (tmp_path / LOG).open("ab") as stream:
        stream.write(b'{"what": 1}\n')
    with pytest.raises(BadData, match=r"log.jsonl line 2"):
        log_in(tmp_path).done()


def test_a_failure_is_kept_but_not_done_and_an_answer_takes_its_place(tmp_path: Path) -> None:
    with log_in(tmp_path) as log:
        log.append([answer("a"), error("b"), error("b", "again")])
    assert log_in(tmp_path).done() == {("no_rag", "a")}
    failed = log_in(tmp_path).complete([("no_rag", "a"), ("no_rag", "b")])
    assert [row.raw for row in read_folder(tmp_path, Answer)] == ["ጤፍ", "again"]

    assert log_in(tmp_path).done() == {("no_rag", "a")}, "of a finished run, too"
    with log_in(tmp_path) as log:
        log.append([answer("b")])
    mended = log_in(tmp_path).complete([("no_rag", "a"), ("no_rag", "b")])
    assert [row.status for row in read_folder(tmp_path, Answer)] == [Status.OK, Status.OK]
    assert mended.digest != failed.digest
    assert [path.name for path in tmp_path.glob("*.jsonl")] == []


@pytest.mark.parametrize("crash_in", ["append", "write_folder"])
def test_a_crash_while_failures_are_mended_loses_nothing(
    tmp_path: Path, crash_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = [("no_rag", name) for name in "abc"]
    with log_in(tmp_path) as log:
        log.append([answer("a"), error("b"), answer("c")])
    log_in(tmp_path).complete(order)
    with log_in(tmp_path) as log:
        log.append([answer("b")])

    def crash(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(AnswerLog if crash_in == "append" else durable, crash_in, crash)
        with pytest.raises(KeyboardInterrupt):
            log_in(tmp_path).complete(order)
    assert log_in(tmp_path).done() == set(order)
    log_in(tmp_path).complete(order)
    assert [(row.question_id, row.status) for row in read_folder(tmp_path, Answer)] == [
        (name, Status.OK) for name in "abc"
    ]


def test_parts_that_a_killed_finish_left_do_not_outlive_their_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first part was written, then came the kill; the same command then mends what that part holds."""
    order = [("no_rag", str(number)) for number in range(5000)]
    with log_in(tmp_path) as log:
        log.append([error("0"), *(answer(name) for _, name in order[1:])])
    written = 0

    def killed_at_the_second(*given: object) -> object:
        nonlocal written
        written += 1
        if written == 2:
            raise KeyboardInterrupt
        return write_rows(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(shards, "write_rows", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            log_in(tmp_path).complete(order)
    with log_in(tmp_path) as log:
        log.append([answer("0")])
    log_in(tmp_path).complete(order)
    assert {row.status for row in read_folder(tmp_path, Answer)} == {Status.OK}


def test_two_processes_do_not_write_one_log(tmp_path: Path) -> None:
    with log_in(tmp_path), pytest.raises(UsageError, match="another process is writing it"):
        log_in(tmp_path).__enter__()
    with log_in(tmp_path) as log:
        log.append([answer("a")])


def test_a_full_disk_is_one_error_and_keeps_what_was_written(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with log_in(tmp_path) as log:
        log.append([answer("a")])
        room = (tmp_path / LOG).stat().st_size + 20
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(Unavailable, match=r"log\.jsonl: can't be written: .*it continues"):
                log.append([answer("b")])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log_in(tmp_path).done() == {("no_rag", "a")}


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
            asyncio.run(work(map(str, range(10_000)), ask, log_in(tmp_path), 4, lambda _: None))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 0 < len(asked) < 100
    assert len(log_in(tmp_path).done()) >= 1
