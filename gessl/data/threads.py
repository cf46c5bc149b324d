"""Work on many files by all cores: hashing, decoding and waiting for a disk need no interpreter's lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
GROUP = 16  # items that a thread takes at once: to hand over a single one costs as much as to hash a small file


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`work(item)` of every item, in order, by as many threads as there are cores.

    Items are taken in the caller's thread, `GROUP` for each core ahead of what is asked for, and no more: memory does
    not grow with their number. An error of `work` is raised where its result would come.
    """
    waiting, running, threads = iter(items), deque[Future[list[R]]](), cores()

    def together(group: list[T]) -> list[R]:
        return [work(item) for item in group]

    with ThreadPoolExecutor(threads) as pool:
        try:
            while group := list(islice(waiting, GROUP)):
                running.append(pool.submit(together, group))
                if len(running) > threads + 1:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:
            for future in running:
                future.cancel()
