"""SSL-HSIC (Li et al. 2021, https://arxiv.org/abs/2106.08320)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods._teacher import Predicting
from gessl.methods.base import Batch, Clock, Project, Seen, Tensors
from gessl.nets.heads import mlp
from gessl.settings import Momentum, Rate, Weight, Width

HIDDENS = 4  # two views, each seen by the online network and by the teacher
SAMPLED = 256  # embeddings of each of these, for the kernel's scale: 1024 altogether
DECAY, SQUARE_DECAY, ADAM_EPS = 0.9, 0.999, 1e-8  # of Adam on the kernel's scale


def imq_frequencies(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """Frequencies `[count, dim]` of the inverse multiquadric kernel 1 / √(1 + r²), drawn exactly.

    The kernel is a mixture of Gaussians exp(-s r²) over s ~ Gamma(1/2, 1), and those have frequencies N(0, 2s I). As 2s
    is a χ² variable of one degree of freedom, a frequency is a standard normal vector times one standard normal number.
    Its length has the density ∝ x^((dim-1)/2) K_((dim-1)/2)(x) that the official code tabulates on a grid up to 100
    (https://github.com/google-deepmind/ssl_hsic/blob/main/ssl_hsic/kernels.py).
    """
    radii = torch.randn(count, 1, generator=generator)
    return radii * torch.randn(count, dim, generator=generator)


def fourier_features(rows: Tensor, frequencies: Tensor, phases: Tensor, scale: Tensor) -> Tensor:
    """Features `[..., count]` of `rows` `[..., D]`, whose scalar products estimate the kernel c / √(c² + r²).

    c is the `scale`, r the distance of two rows.
    """
    return math.sqrt(2 / len(phases)) * torch.cos(rows / scale @ frequencies.T + phases)


def hsic_zy(features: Tensor) -> Tensor:
    """HSIC between embeddings and image identity, of features `[V, N, count]` of each image's V embeddings."""
    views, count, _ = features.shape
    same_image = features.sum(0).square().sum() / (count * views * (views - 1))
    return same_image - features.mean((0, 1)).square().sum()


def root_hsic_zz(first: Tensor, second: Tensor) -> Tensor:
    """√HSIC of embeddings with themselves, of two independent sets of features `[V, N, count]`."""
    first, second = (features.flatten(0, 1) - features.mean((0, 1)) for features in (first, second))
    # the norm itself rather than the root of its square: its gradient is 0, not NaN, where all embeddings are one
    return torch.linalg.vector_norm(first.T @ second) / len(first)


def scale_slope(rows: Tensor, others: Tensor, scale: Tensor) -> Tensor:
    """Gradient by c of -mean log |∂k/∂r²| over all pairs of unit `rows` and `others` `[n, D]`; k = c / √(c² + r²)."""
    squared = (2 - 2 * rows @ others.T).clamp(min=0)
    return 3 * scale * (squared + scale.square()).reciprocal().mean() - 1 / scale


def embeddings(outputs: Tensors, targets: Tensors) -> Tensor:
    """The four unit embeddings of each image, `[4, N, D]`: two predictions, two of the teacher's projections."""
    return F.normalize(torch.cat([outputs["p"], targets["z"]]), dim=-1)


def sampled_slope(task: Seen, scale: Tensor) -> Tensor:
    """`scale_slope` over all pairs of the embeddings that the batch's draws have sampled on either side."""
    rows = embeddings(task.outputs, task.targets)
    which = task.batch.draws["pairs"].unsqueeze(-1)  # [2, 4, SAMPLED, 1]
    one, other = (torch.take_along_dim(rows, index, dim=1).flatten(0, 1) for index in which)
    return scale_slope(one, other, scale)


@dataclass(frozen=True)
class SSLHSIC(Predicting):
    """Embeddings depend on which image they show and, beyond that, vary as little as possible.

    Loss γ √HSIC(Z, Z) - HSIC(Z, Y), where Z are each image's four embeddings (the online network's predictions and the
    teacher's projections of both views), after the official code
    (https://github.com/google-deepmind/ssl_hsic/blob/main/ssl_hsic/kernels.py): random Fourier features, new for each
    set of views, two independent sets for HSIC(Z, Z). The kernel's scale is no parameter of the network: after each
    step, Adam moves it to where the kernel responds most to distances, and the loss takes it as a constant.
    """

    hidden: Width = 4096
    dim: Width = 256
    frequencies: Width = 512
    gamma: Weight = 3.0
    scale_lr: Rate = 3e-4
    momentum: Momentum = 0.99

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {
            "projector": mlp(features, self.hidden, self.dim, bias_last=False),
            "predictor": mlp(self.dim, self.hidden, self.dim, bias_last=False),
        }

    def draw(self, batch: Batch, images: int, generator: torch.Generator) -> Tensors:
        pairs = (2, HIDDENS, SAMPLED)
        return {
            "frequencies": torch.stack([imq_frequencies(self.frequencies, self.dim, generator) for _ in range(2)]),
            "phases": 2 * math.pi * torch.rand(2, self.frequencies, generator=generator),
            "pairs": torch.randint(batch.views.shape[1], pairs, generator=generator),
        }

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        scale = {"scale": torch.ones(()), "scale_mean": torch.zeros(()), "scale_square": torch.zeros(())}
        return {**super().init_state(params, images, generator), **scale}

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        constants = {name: batch.draws[name] for name in ("frequencies", "phases")}
        return {**super().targets(outputs, state, project, batch), "scale": state["scale"], **constants}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        rows = embeddings(outputs, targets)
        first, second = (
            fourier_features(rows, frequencies, phases, targets["scale"])
            for frequencies, phases in zip(targets["frequencies"], targets["phases"], strict=True)
        )
        return self.gamma * root_hsic_zz(first, second) - hsic_zy(first)

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        moved = super().commit(state, params, tasks, clock)
        slope = torch.stack([sampled_slope(task, state["scale"]) for task in tasks]).mean()
        mean = DECAY * state["scale_mean"] + (1 - DECAY) * slope
        square = SQUARE_DECAY * state["scale_square"] + (1 - SQUARE_DECAY) * slope.square()
        direction = mean / (1 - DECAY**clock.step)
        length = (square / (1 - SQUARE_DECAY**clock.step)).sqrt() + ADAM_EPS
        scale = state["scale"] - self.scale_lr * direction / length
        return {**moved, "scale": scale, "scale_mean": mean, "scale_square": square}
