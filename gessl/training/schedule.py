"""Schedules as pure functions of the step: nothing to save, nothing to restore."""

import math

from gessl.training.settings import Cosine, Drops, TrainSettings

DROP = 0.2  # factor of each drop, of the W-MSE recipe (https://github.com/htdt/self-supervised/blob/master/train.py)


def learning_rate(step: int, train: TrainSettings) -> float:
    """Learning rate of step 0 … steps - 1: linear warm-up to `lr`, then constant, drops or a half cosine to `min_lr`.

    Step s of the warm-up uses from + (lr - from) · (s + 1) / warmup, so the first step already moves.
    """
    if step < train.warmup:
        return train.warmup_from + (train.lr - train.warmup_from) * (step + 1) / train.warmup
    schedule = train.schedule
    if isinstance(schedule, Cosine):
        share = (step - train.warmup) / max(train.steps - train.warmup, 1)
        return schedule.min_lr + (train.lr - schedule.min_lr) * (1 + math.cos(math.pi * share)) / 2
    drops = schedule.before_end if isinstance(schedule, Drops) else ()
    return train.lr * DROP ** sum(step >= train.steps - before for before in drops)
