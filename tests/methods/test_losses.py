"""Losses against float64 formulas written from the papers with loops; gradients against finite differences."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gessl.methods._contrast import nt_xent
from gessl.methods.barlow_twins import BarlowTwins, cross_correlation
from gessl.methods.base import Clock
from gessl.methods.byol import BYOL
from gessl.methods.simclr import SimCLR
from gessl.methods.simsiam import SimSiam
from gessl.rng import generator

N, D = 6, 5


def draw(name: str, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(0, name))


def test_targets_get_a_gradient_unless_the_engine_holds_them() -> None:
    target = draw("t", 2, N, D).requires_grad_()
    for method in (BYOL(), SimSiam()):
        loss = method.loss({"p": draw("p", 2, N, D)}, {"z": target})
        (gradient,) = torch.autograd.grad(loss, target)
        assert gradient.abs().max() > 1e-3, "a loss must not detach: that is the engine's decision"


@pytest.mark.parametrize("method", [SimCLR(), BarlowTwins(), BYOL(), SimSiam()], ids=lambda m: type(m).__name__)
def test_order_of_images_does_not_matter(method) -> None:
    z, p = draw("z", 2, N, D), draw("p", 2, N, D)
    order = torch.randperm(N, generator=generator(0, "order"))
    before = method.loss({"z": z, "p": p}, {"z": z})
    after = method.loss({"z": z[:, order], "p": p[:, order]}, {"z": z[:, order]})
    assert float(after) == pytest.approx(float(before), rel=1e-12)


def test_invariances() -> None:
    z, p = draw("z", 2, N, D), draw("p", 2, N, D)
    rotation = torch.linalg.qr(draw("q", D, D))[0]
    lengths = 0.5 + torch.rand(2, N, 1, dtype=torch.float64, generator=generator(0, "l"))
    assert float(nt_xent(z @ rotation * lengths, 0.3)) == pytest.approx(float(nt_xent(z, 0.3)), rel=1e-12)
    for method in (BYOL(), SimSiam()):
        before = method.loss({"p": p}, {"z": z})
        after = method.loss({"p": p @ rotation * lengths}, {"z": z @ rotation / lengths})
        assert float(after) == pytest.approx(float(before), rel=1e-12)
    moved = z * (1 + draw("s", D).abs()) + draw("b", D)  # Barlow Twins standardises: affine per feature, up to eps
    assert torch.allclose(cross_correlation(*moved), cross_correlation(*z), atol=1e-4)


def test_known_values() -> None:
    identical = torch.ones(2, N, D, dtype=torch.float64)
    assert float(nt_xent(identical, 0.1)) == pytest.approx(math.log(2 * N - 1))  # collapse: uniform over 2N - 1
    assert float(BYOL().loss({"p": identical}, {"z": -identical})) == pytest.approx(8)
    assert float(SimSiam().loss({"p": identical}, {"z": identical})) == pytest.approx(-1)
    whitened = torch.linalg.qr(F.pad(draw("w", 40, D), (1, 0), value=1.0))[0][:, 1:]  # centred, uncorrelated columns
    perfect = torch.stack([whitened, whitened]) * 40**0.5
    assert float(BarlowTwins().loss({"z": perfect}, {})) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_temperatures_stay_finite(temperature: float, dtype: torch.dtype) -> None:
    z = draw("z", 2, N, D).to(dtype).requires_grad_()
    loss = nt_xent(z, temperature)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_teacher_momentum_follows_the_cosine_to_one() -> None:
    method = BYOL(momentum=0.9)
    old, new = draw("old", 3), draw("new", 3)
    for progress in (0.0, 0.25, 0.5, 1.0):
        momentum = 1 - 0.1 * (math.cos(math.pi * progress) + 1) / 2
        moved = method.commit(
            {"teacher.w": old}, {"w": new, "predictor.w": new}, [], Clock(int(4 * progress) + 1, 4, 1)
        )
        assert set(moved) == {"teacher.w"}
        assert torch.allclose(moved["teacher.w"], momentum * old + (1 - momentum) * new, rtol=1e-12)
