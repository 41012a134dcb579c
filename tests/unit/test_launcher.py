"""Starting goes wrong in many ways; each says why, and none leaves a process behind. Quick programs stand for vLLM."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from m4rag.errors import BadData, Unavailable
from m4rag.vlm import engine, guard, launcher


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def instead_of_vllm(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "command", lambda *args, **options: [sys.executable, "-c", code])


def start(model: Path | str, tmp_path: Path, **options: Any) -> None:
    launcher.start(model, served_name="x", log=tmp_path / "logs" / "vllm.log", **options)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.fixture
def attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """vLLM finds its port taken; the file has a letter for every time it was started."""
    count = tmp_path / "attempts"
    instead_of_vllm(
        f"import sys; open({str(count)!r}, 'a').write('x'); sys.exit('OSError: [Errno 98] Address already in use')",
        monkeypatch,
    )
    return count


def test_m4rag_fault_17_a_port_lost_to_another_program_is_chosen_again_once(
    checkpoint: Path, attempts: Path, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match="port is already in use"):
        start(checkpoint, tmp_path)
    assert attempts.read_text() == "xx"


def test_a_port_that_was_asked_for_is_not_exchanged(checkpoint: Path, attempts: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unavailable, match="port is already in use"):
        start(checkpoint, tmp_path, port=port)
    assert attempts.read_text() == "x"


def test_a_taken_port_is_refused_before_anything_starts(
    checkpoint: Path, attempts: Path, taken_port: int, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{taken_port}: the port cannot be used"):
        start(checkpoint, tmp_path, port=taken_port)
    assert not attempts.exists()


def test_a_silent_end_tells_the_status_and_the_log(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead_of_vllm("raise SystemExit(3)", monkeypatch)
    with pytest.raises(Unavailable, match=r"vllm\.log: vLLM did not start: it ended with status 3"):
        start(checkpoint, tmp_path)


def test_an_end_by_the_kernel_is_told_as_lack_of_memory(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead_of_vllm("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", monkeypatch)
    with pytest.raises(Unavailable, match="not enough free memory"):
        start(checkpoint, tmp_path)


def test_a_server_that_never_answers_is_stopped(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    instead_of_vllm(f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpgrp())); time.sleep(600)", monkeypatch)
    seconds: list[int] = []
    with pytest.raises(Unavailable, match=r"did not answer within 1\.5 s"):
        start(checkpoint, tmp_path, wait_s=1.5, progress=seconds.append)
    assert sum(seconds) == 1
    assert guard.members(int(pid.read_text())) == []


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (".", "holds no config.json"),
        ("./gone", "no such model folder"),
        (Path("org/model"), "no such model folder"),
        ("gone", "no such model folder"),
    ],
)
def test_what_can_be_no_model_is_refused_before_anything_starts(
    model: Path | str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unavailable, match=says):
        start(model, tmp_path)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(("installed", "says"), [((), "not installed"), (("vllm",), "no NVIDIA GPU")])
def test_a_missing_vllm_is_told_with_the_remedy(
    installed: tuple[str, ...], says: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_installed", lambda name: name in installed)
    monkeypatch.setattr(engine, "_has_device", lambda: False)
    with pytest.raises(Unavailable, match=says) as failure:
        start(checkpoint, tmp_path)
    assert "m4rag[local]" in str(failure.value)


def test_m4rag_fault_25_cuda_graphs_are_left_on_where_there_is_a_gpu(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for gpu in (True, False):
        monkeypatch.setattr(engine, "on_gpu", lambda gpu=gpu: gpu)
        line = engine.command(checkpoint, "m", 1, "generate", max_model_len=None, kv_cache_gib=1.0, gpu_memory=None)
        assert ("--enforce-eager" in line) is not gpu


def record(home: Path, **changes: Any) -> None:
    state = {"url": "http://127.0.0.1:1/v1", "model": "x", "checkpoint": "/m", "pid": os.getpid(), "started": "?"}
    home.mkdir(parents=True, exist_ok=True)
    (home / launcher.STATE).write_text(json.dumps(state | {"log": "/l"} | changes))


def test_no_record_no_server(tmp_path: Path) -> None:
    assert launcher.status(tmp_path) is None
    assert launcher.down(tmp_path) is None


def test_a_record_of_a_process_that_is_gone_is_no_server(tmp_path: Path) -> None:
    record(tmp_path, pid=2**22 + 1)
    assert launcher.status(tmp_path) is None
    assert launcher.down(tmp_path) is None
    assert not (tmp_path / launcher.STATE).exists()


def test_down_ends_the_whole_group(tmp_path: Path) -> None:
    log = tmp_path / "log"
    line = [sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '600'])"]
    with launcher._launch(line, dict(os.environ), "http://127.0.0.1:1/v1", "x", log) as server:
        record(tmp_path, pid=server.pid, started=launcher._started(server.pid))
        up = launcher.status(tmp_path)
        assert up is not None
        assert guard.members(server.pid)
        assert launcher.down(tmp_path) == up
        assert guard.members(server.pid) == []
    assert launcher.status(tmp_path) is None


def test_a_later_process_with_the_same_number_is_left_alone(tmp_path: Path) -> None:
    record(tmp_path)  # this very process, recorded as one that began at another time
    assert launcher.down(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"url": "x"}'])
def test_a_damaged_record_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / launcher.STATE).write_text(content)
    with pytest.raises(BadData, match=r"vlm\.json: not a record"):
        launcher.status(tmp_path)
