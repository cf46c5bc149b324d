"""Where and how fast a job computes: its device, threads and torch's modes."""

import os
from dataclasses import dataclass
from typing import Annotated, Literal

import torch

from gessl.allocator import keep_freed_memory
from gessl.errors import UserError
from gessl.nets.parallel import join
from gessl.settings import Count, Range, Settings, Steps


@dataclass(frozen=True)
class Efficiency(Settings):
    """Where and how fast; no part of a run's identity.

    Attributes:
        device: "auto" takes a CUDA device if there is one.
        compile: let torch.compile fuse the passes: minutes of start for faster steps, so for long runs; changes last
            bits.
        threads: CPU threads of a training or evaluation job (another number gives other last bits, so it is recorded).
        checkpoint_every: steps between checkpoints.
        log_every: steps between writes of the metrics (every step is logged).
        embed_batch: images that are embedded at a time when a run is scored (another number gives other last bits, so
            it is recorded).
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False
    threads: Annotated[int, Range(ge=1, le=1024)] = 1
    checkpoint_every: Steps = 50
    log_every: Count = 10
    embed_batch: Annotated[int, Range(ge=1, le=65_536)] = 512


def can_read_ahead(device: torch.device) -> bool:
    """Whether threads can read while the device computes, and take nothing from it.

    On a CPU that needs as many cores again as there are computing threads, of all processes here: threads that wait
    for each other at the end of each operation lose more to a reader than it gains.
    """
    if device.type == "cuda":
        return True
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores >= 2 * torch.get_num_threads() * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's word


def set_up(efficiency: Efficiency) -> torch.device:
    """Choose the device and make computation deterministic.

    Raises:
        UserError: CUDA was asked for and there is none.
    """
    cuda = torch.cuda.is_available()
    if efficiency.device == "cuda" and not cuda:
        raise UserError("efficiency.device: cuda was asked for, but torch sees no CUDA device; use auto or cpu")
    torch.set_num_threads(efficiency.threads)
    keep_freed_memory()
    if not cuda or efficiency.device == "cpu":
        join("gloo")
        return torch.device("cpu")  # what we call is deterministic there for a fixed number of threads
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace
    torch.use_deterministic_algorithms(True)  # takes seconds: it imports the compiler
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))  # torchrun's word for the process's number here
    join("cpu:gloo,cuda:nccl")
    return torch.device("cuda")
