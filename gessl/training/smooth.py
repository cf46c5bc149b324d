"""A small smooth learner in float64, and its tasks: what a method's contract is tried on."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gessl.methods._teacher import TEACHER
from gessl.methods.base import Batch, Clock, Method, Seen, Tensors
from gessl.methods.learner import Learner, Variables
from gessl.nets.vit import ViT
from gessl.rng import generator

N, SIZE, IMAGES = 8, 8, 24


def narrow(method: Method) -> Method:
    """A base method with its widths, which are whole numbers above 8, cut to a few units: 7, 6, …"""
    wide = [name for name, value in vars(method).items() if type(value) is int and value > 8]
    return dataclasses.replace(method, **{name: 7 - index for index, name in enumerate(wide)})


class TanhEncoder(nn.Module):
    """Smooth, so that finite differences converge: on ReLU networks they do not."""

    features = 6

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 6, 3, padding=1), nn.Tanh()
        )

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps `[B, F, H / 2, W / 2]`."""
        return nn.functional.avg_pool2d(self.body(images), 2)

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, F]`."""
        return self.maps(images).mean((2, 3))


class TanhHalves(nn.Module):
    """Smooth, with a half for the mean of the channels and one for their differences."""

    features = 6

    def __init__(self) -> None:
        super().__init__()
        self.lightness, self.colour = (
            nn.Sequential(nn.Conv2d(channels, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Tanh()) for channels in (1, 2)
        )

    def halves(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[B, F / 2]` of lightness and of colour."""
        lightness = self.lightness(images.mean(1, keepdim=True))
        return lightness.mean((2, 3)), self.colour(images.diff(dim=1)).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, F]`."""
        return torch.cat(self.halves(images), 1)


# by what a method needs of its encoder
ENCODERS: dict[str, Callable[[], Any]] = {
    "features": TanhEncoder,
    "maps": TanhEncoder,
    "tokens": lambda: ViT(3, SIZE, 2, width=8, depth=4, heads=2),  # GELU is smooth
    "lab": TanhHalves,
}


def learner(method: Method) -> tuple[Learner, Variables]:
    """A method bound to a smooth encoder, ReLU replaced by tanh, everything in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = ENCODERS[method.needs]()
    bound = Learner(method, encoder, generator(0, "heads"), images=IMAGES)
    for module in bound._net.modules():
        for child_name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, child_name, nn.Tanh())
    variables = bound.init()
    groups = [{key: t.double() if t.is_floating_point() else t for key, t in group.items()} for group in variables]
    params, buffers, state = groups
    # a teacher that differs from the online network, as in the midst of training
    state |= {
        key: t + 0.05 * torch.randn(t.shape, generator=generator(0, key), dtype=t.dtype)
        for key, t in state.items()
        if key.startswith(TEACHER)
    }
    return bound, _past_an_epoch(bound, Variables(params, buffers, _open(state)))


def _open(state: Tensors) -> Tensors:
    """The same after what holds prototypes still and keeps a queue closed in the first epochs."""
    opened = dict(state)
    if "frozen" in state:
        opened["frozen"] = torch.zeros_like(state["frozen"])
    if "queued" in state:
        opened["queued"] = torch.full_like(state["queued"], state["queue"].shape[1])
        rows = torch.randn(state["queue"].shape, generator=generator(0, "rows"), dtype=state["queue"].dtype)
        opened["queue"] = nn.functional.normalize(rows, dim=-1)
    return opened


def _past_an_epoch(bound: Learner, variables: Variables) -> Variables:
    """The same after an epoch's end, for a method that learns nothing before."""
    if "assignments" not in variables.state:
        return variables
    params, buffers, state = variables
    seen = []
    for batches in (task(bound, number=number) for number in range(IMAGES // N)):
        outputs, _ = bound.encode(params, buffers, batches[0])
        seen.append(Seen(batches[0], outputs, bound.targets(outputs, buffers, state, batches[0])))
    return Variables(params, buffers, bound.commit(state, params, seen, Clock(1, 2, 1)))


def task(bound: Learner, sets: int = 1, number: int = 0) -> list[Batch]:
    """`sets` sets of views of one mini-batch: noisy copies of the same images, with the method's own draws."""
    rng = generator(number, "task")
    count = bound.method.views[1]
    images = torch.randn(1, N, 3, SIZE, SIZE, generator=rng, dtype=torch.float64)
    index = torch.randperm(IMAGES, generator=rng)[:N]

    def batch(s: int) -> Batch:
        views = images + 0.3 * torch.randn(count, *images.shape[1:], generator=rng, dtype=torch.float64)
        crops = views[:, :, :, :4, 4:] if bound.method.crops else None
        total = count if crops is None else 2 * count
        corner = torch.randint(0, SIZE // 2, (total, N, 2), generator=rng)
        side = torch.randint(SIZE // 4, SIZE // 2, (total, N, 2), generator=rng)
        flips = torch.rand(total, N, generator=rng) < 0.5
        drawn = bound.draw(Batch(views, crops, torch.cat([corner, side], -1), flips, index), generator(number, "d", s))
        draws = {key: t.double() if t.is_floating_point() else t for key, t in drawn.draws.items()}
        return drawn._replace(draws=draws)

    return [batch(s) for s in range(sets)]
