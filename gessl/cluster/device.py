"""The device that computes, without a wait for it: copies to it, and moments of its own time."""

import time
from typing import NamedTuple

import torch
from torch import Tensor

Moment = float | torch.cuda.Event


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device without waiting: from pinned memory, as a copy from elsewhere would wait."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def moment(device: torch.device) -> Moment:
    """Now; on CUDA, when the device has done what it was given so far, which may be later."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(earlier: Moment, later: Moment) -> float:
    """Seconds from one moment of a device to another; both must have passed."""
    if isinstance(earlier, torch.cuda.Event) and isinstance(later, torch.cuda.Event):
        return earlier.elapsed_time(later) / 1000
    assert isinstance(earlier, float) and isinstance(later, float)
    return later - earlier


class StepTime(NamedTuple):
    """When a step began and ended, and between which moments it waited for data."""

    began: Moment
    waits: list[tuple[Moment, Moment]]
    ended: Moment

    def data_wait(self) -> float:
        """The share of its time that it waited, in [0, 1]; all of it must have passed."""
        whole = seconds_between(self.began, self.ended)
        return min(1.0, sum(seconds_between(*wait) for wait in self.waits) / whole) if whole else 0.0
