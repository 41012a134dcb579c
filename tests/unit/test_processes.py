"""Work on all cores: results in order, errors in the user's terms, nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from m4rag.corpus.chunker import PORTABLE
from m4rag.errors import BadData, Unavailable
from m4rag.processes import cores, in_order
from m4rag.shards import read_table

pytestmark = pytest.mark.skipif(cores() == 1, reason="needs two cores: with one, work stays in this process")


def test_results_come_in_the_order_of_the_items() -> None:
    items = [["word " * (1 + (7 * number) % 50)] for number in range(40)]
    assert list(in_order(PORTABLE.count, iter(items))) == [PORTABLE.count(item) for item in items]


def test_one_item_stays_in_this_process_and_none_is_none() -> None:
    here: list[int] = []
    assert list(in_order(here.append, [1])) == [None]  # a list's method would be lost in another process
    assert here == [1]
    assert list(in_order(len, [])) == []


def test_an_error_of_a_worker_keeps_its_place_and_class(tmp_path: Path) -> None:
    missing = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    with pytest.raises(BadData, match=r"a\.parquet: no such file"):
        list(in_order(read_table, missing))


def test_a_worker_that_dies_is_an_error_and_not_a_wait() -> None:
    with pytest.raises(Unavailable, match="a worker process died"):
        list(in_order(os._exit, [1, 1]))


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from m4rag.processes import in_order\n"
        "if __name__ == '__main__':\n"
        "    for _ in in_order(time.sleep, [0, 0, 600, 600]):\n"
        "        print('working', flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "working\n"
    workers = [int(pid) for pid in _children(parent.pid)]
    assert len(workers) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 30
    while any(_alive(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in workers if _alive(pid)]


def _children(pid: int) -> list[str]:
    return [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
