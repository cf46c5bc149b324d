"""Every random draw comes from a generator keyed by (seed, purpose, step, item)."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # steps that draw with NumPy alone do not pay for importing torch
    import torch


def _digest(seed: int, key: tuple[str | int, ...]) -> int:
    text = repr((int(seed), *key)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def generator(seed: int, *key: str | int) -> "torch.Generator":
    """A CPU generator determined by `seed` and `key` alone, so that no draw depends on what was drawn before it.

    Draws are made on the CPU and moved to the device: the same numbers on every machine.
    """
    import torch

    return torch.Generator().manual_seed(_digest(seed, key))


def numpy_generator(seed: int, *key: str | int) -> np.random.Generator:
    """The NumPy counterpart of `generator` (PCG64)."""
    return np.random.default_rng(_digest(seed, key))
