"""Work for all the cores that this process may use, in processes that end with it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing.connection import wait
from typing import TypeVar

from m4rag.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results of `function` in the order of the items, as `map` gives them, worked out on all cores.

    One item, or one core, is worked on in this process. Items are taken as there is room: two a core are in memory.

    Args:
        function: Can be pickled, as its items and results can: a function of a module, or a `partial` of one.
        items: What to work on.

    Raises:
        Unavailable: A process died; most often it was out of memory.
        Exception: The first, in the order of the items, that `function` raised.
    """
    iterator = iter(items)
    first = list(islice(iterator, 2))
    if len(first) < 2 or cores() == 1:
        yield from map(function, chain(first, iterator))
        return
    # Not forked: threads of this process may hold locks.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(cores(), mp_context=context, initializer=_end_with_parent)
    try:
        waiting: deque[Future[Result]] = deque()
        for item in chain(first, iterator):
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * cores():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise Unavailable(
            "a worker process died, most likely for want of memory",
            remedy="Free memory or use fewer cores (taskset), and repeat the command: it continues.",
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - this runs in a child only
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
