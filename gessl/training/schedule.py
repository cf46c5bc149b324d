"""Schedules as pure functions of the step: nothing to save, nothing to restore."""

import math

from gessl.training.settings import TrainSettings


def learning_rate(step: int, train: TrainSettings) -> float:
    """Learning rate of step 0 … steps - 1: linear warm-up to `lr`, then constant or a half cosine towards 0.

    Step s of the warm-up uses lr · (s + 1) / warmup, so the first step already moves.
    """
    if step < train.warmup:
        return train.lr * (step + 1) / train.warmup
    if train.schedule == "constant":
        return train.lr
    share = (step - train.warmup) / max(train.steps - train.warmup, 1)
    return train.lr * (1 + math.cos(math.pi * share)) / 2
