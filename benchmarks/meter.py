"""Time and memory of one call."""

import gc
import itertools
import os
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")


def timed(run: Callable[[], T], device: str, calls: int = 1) -> tuple[float, T]:
    """Seconds that one call takes, the mean of `calls` in a row, and what it returns.

    On a CPU with one thread the process's own CPU time, which other processes do not lengthen; else wall clock time,
    with the device idle at both ends. Garbage of earlier calls is collected beforehand.
    """
    gc.collect()
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    _wait(device)
    start = clock()
    for _ in range(calls):
        result = run()
    _wait(device)
    return (clock() - start) / calls, result


def peak_bytes(run: Callable[[], object], device: str) -> int:
    """The most memory that the call holds at any time, beyond what was held when it began.

    Counts what torch's allocators hand out: on a CPU from the profiler's record of every allocation. Scratch space
    inside a kernel's library is not seen.
    """
    gc.collect()
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        _wait(device)
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # each start and stop would be announced
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(held, default=0)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
