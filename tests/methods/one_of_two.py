"""One of two processes that share each mini-batch: `python -m tests.methods.one_of_two RANK FOLDER`.

The images of the two shares differ, so that a gradient that forgets the other's share, or counts its own twice, shows.
"""

import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from gessl.bilevel.natural import NaturalGradient
from gessl.bilevel.settings import GesslSettings
from gessl.methods.base import Batch
from gessl.nets.parallel import share
from gessl.training.step import outer_gradient
from tests.bilevel.smooth import KINDS, METHODS, learner, task_for

SETTINGS = {
    "plain": None,
    "unroll": GesslSettings(inner_steps=1, target_steps=1, inner_lr=0.02),
    "replay": GesslSettings(inner_steps=2, target_steps=1, inner_lr=0.02, ssl_weight=0.5, ssl_at="adapted"),
    "other": GesslSettings(
        target_steps=2, inner_lr=0.02, ssl_at="adapted", judged_on="other", kl_gradient=NaturalGradient()
    ),
}
ON_EVERY_METHOD = ("plain", "unroll")  # the rest is the engine's, the same for every method


def gradients(name: str) -> dict[str, torch.Tensor]:
    """Losses, gradients and batch statistics of every setting, by name."""
    bound, variables = learner(name)
    found = {}
    for label, settings in SETTINGS.items():
        if label not in ON_EVERY_METHOD and name not in KINDS:
            continue
        views = task_for(bound, settings or GesslSettings())
        outer = outer_gradient(bound, variables, [[with_own_pixels(batch) for batch in views]], settings)
        found |= {f"{label}.gradient.{key}": tensor for key, tensor in outer.gradient.items()}
        found |= {f"{label}.buffer.{key}": tensor for key, tensor in outer.buffers.items()}
        found |= {f"{label}.{key}": tensor for key, tensor in outer.logs.items()}
    return found


def with_own_pixels(batch: Batch) -> Batch:
    """As a run makes it: another process's images are NaN, so that whoever reads them shows."""
    own = torch.zeros(batch.views.shape[1], 1, 1, 1, dtype=torch.bool)
    own[share(len(own))] = True
    views, crops = (None if t is None else t.where(own, torch.nan) for t in (batch.views, batch.crops))
    return batch._replace(views=views, crops=crops)


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", timedelta(minutes=5), world_size=2, rank=rank)
    torch.save({name: gradients(name) for name in METHODS}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
