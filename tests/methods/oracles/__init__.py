"""One file per base method: its loss written a second time, from the paper, with loops over float64 numbers.

Each has

    METHOD                          a small instance
    case(kind) -> outputs, targets  of a mini-batch that is "random", "aligned" (views agree) or "near-collapsed"
    loss(outputs, targets) -> float the paper's formula (nothing of gessl but the METHOD's numbers may be used)
    UNIT                            outputs whose rows have length 1, if any
    BLIND                           outputs that must get no gradient (not read by the loss, or stopped), if any
    DIFFERENTIABLE = False          only where the loss is not smooth at the cases (then say why)
"""

import torch
from torch import Tensor

from gessl.rng import generator

N, D = 6, 5


def draw(name: str, *shape: int) -> Tensor:
    """Standard normal float64 numbers, the same for the same name."""
    return torch.randn(*shape, dtype=torch.float64, generator=generator(0, name))


def pairs(kind: str, views: int = 2) -> Tensor:
    """Embeddings `[views, N, D]` of a kind."""
    z = draw("z", views, N, D)
    if kind == "aligned":
        return z[:1].expand(views, N, D).clone()
    if kind == "near-collapsed":
        return draw("one", 1, 1, D).expand(views, N, D) + 1e-3 * draw("noise", views, N, D)
    return z


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))
