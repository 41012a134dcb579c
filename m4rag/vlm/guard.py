"""Run a server for as long as whoever wanted it lives, and leave none of its processes behind.

    python guard.py <lifeline> <command> [argument ...]

vLLM is a tree of processes. The guard is started as the leader of a process group and starts the command inside it.
It stops the whole group when the command ends, when it is asked to (SIGTERM), or when the other end of the pipe
`lifeline` (a file descriptor) closes: the kernel closes it however the starter ends, kill -9 included. A byte in the
pipe lets the command outlive its starter. Only the standard library is imported: the guard runs as a bare script.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

GRACE_S = 10.0
POLL_S = 0.1


def members(group: int) -> list[int]:
    """Living processes of a process group; the dead that nobody has waited for do not count."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # After the parenthesised command name: state, parent, process group.
                state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended while we looked
            if int(its_group) == group and state not in "ZX":
                found.append(int(entry.name))
    return found


def stop_group(group: int, *, grace_s: float = GRACE_S, spare: int | None = None) -> None:
    """End every process of a group: SIGTERM first, SIGKILL after the grace period.

    Args:
        group: Process group id.
        grace_s: Seconds that SIGTERM gets.
        spare: A member that is left alone (the caller).
    """

    def others() -> list[int]:
        return [pid for pid in members(group) if pid != spare]

    for signal_number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, GRACE_S)):
        for pid in others():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)
        deadline = time.monotonic() + patience_s
        while others():
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
        else:
            return


def main(lifeline: int, command: list[str]) -> int:
    """Run the command until it ends or must end; returns its exit status."""
    asked_to_stop = False

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        nonlocal asked_to_stop
        asked_to_stop = True

    signal.signal(signal.SIGTERM, stop)
    watched = [lifeline]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while child.poll() is None and not asked_to_stop:
        if select.select(watched, [], [], POLL_S)[0]:
            if not os.read(lifeline, 1):
                break
            watched = []
    stop_group(os.getpgrp(), spare=os.getpid())
    return child.wait()


if __name__ == "__main__":
    status = main(int(sys.argv[1]), sys.argv[2:])
    # A shell's convention: 128 + signal. The launcher reads 137 as a process that the system killed.
    sys.exit(status if status >= 0 else 128 - status)
