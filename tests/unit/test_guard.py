"""No process of a server survives whoever wanted it, whatever ends first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from m4rag.vlm import guard

# A server as vLLM is one: a parent with a child; told apart by what it writes once both run.
TREE = (
    "import subprocess, sys, time; subprocess.Popen(['sleep', '600']); print('up', flush=True); time.sleep({seconds})"
)
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + TREE


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Guarded:
    """A guard with its command running under it, and our end of its lifeline."""

    def __init__(self, code: str, log: Path) -> None:
        reading, self.lifeline = os.pipe()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(reading), sys.executable, "-c", code],
                pass_fds=[reading],
                stdout=output,
                start_new_session=True,
            )
        os.close(reading)
        assert until(lambda: log.read_bytes() == b"up\n")

    def alive(self) -> list[int]:
        return guard.members(self.process.pid)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Callable[[str], Guarded]]:
    started: list[Guarded] = []

    def start(code: str = TREE.format(seconds=600)) -> Guarded:
        started.append(Guarded(code, tmp_path / "log"))
        return started[-1]

    yield start
    for one in started:
        guard.stop_group(one.process.pid, grace_s=0)
        one.process.wait()


def test_the_tree_runs_in_one_group(guarded: Callable[..., Guarded]) -> None:
    assert len(guarded().alive()) == 3  # guard, parent, child


def test_closing_the_lifeline_ends_all_of_it(guarded: Callable[..., Guarded]) -> None:
    tree = guarded()
    os.close(tree.lifeline)
    tree.process.wait(timeout=20)
    assert tree.alive() == []


def test_a_command_that_ends_takes_its_children_along(guarded: Callable[..., Guarded]) -> None:
    tree = guarded(TREE.format(seconds=0.1) + "; sys.exit(7)")
    assert tree.process.wait(timeout=20) == 7
    assert tree.alive() == []


def test_a_command_that_is_killed_takes_its_children_along(guarded: Callable[..., Guarded]) -> None:
    tree = guarded()
    command = min(pid for pid in tree.alive() if pid != tree.process.pid)
    os.kill(command, signal.SIGKILL)
    assert tree.process.wait(timeout=20) == 128 + 9
    assert tree.alive() == []


def test_asking_the_guard_to_stop_ends_all_of_it(guarded: Callable[..., Guarded]) -> None:
    tree = guarded()
    tree.process.terminate()
    tree.process.wait(timeout=20)
    assert tree.alive() == []


def test_a_released_command_outlives_the_lifeline(guarded: Callable[..., Guarded]) -> None:
    tree = guarded()
    os.write(tree.lifeline, b"1")
    os.close(tree.lifeline)
    with pytest.raises(subprocess.TimeoutExpired):
        tree.process.wait(timeout=5 * guard.POLL_S)
    assert len(tree.alive()) == 3
    guard.stop_group(tree.process.pid)
    assert tree.alive() == []


def test_what_ignores_the_polite_signal_is_killed(guarded: Callable[..., Guarded]) -> None:
    tree = guarded(STUBBORN.format(seconds=600))
    guard.stop_group(tree.process.pid, grace_s=0.2)
    assert tree.alive() == []


def test_m4rag_fault_17_kill_9_of_the_starter_ends_all_of_it(tmp_path: Path) -> None:
    starter = f"""
import sys, time
from pathlib import Path
from m4rag.vlm.launcher import _launch
server = _launch([sys.executable, "-c", {TREE.format(seconds=600)!r}], {{}}, "", "", Path({str(tmp_path / "log")!r}))
print(server.pid, flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    group = int(process.stdout.readline())
    try:
        assert until(lambda: (tmp_path / "log").read_bytes() == b"up\n")
        assert len(guard.members(group)) == 3
        process.kill()
        process.wait()
        assert until(lambda: guard.members(group) == [])
    finally:
        guard.stop_group(group, grace_s=0)
        process.stdout.close()
