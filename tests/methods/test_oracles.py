"""Every loss against its oracle (tests/methods/oracles): value, gradient, second derivative, and what must get none."""

import dataclasses
import importlib
from types import ModuleType

import pytest
import torch

from gessl.methods import method_names
from tests.methods.oracles import draw

KINDS = ("random", "aligned", "near-collapsed")


def oracle(name: str) -> ModuleType:
    return importlib.import_module(f"tests.methods.oracles.{name}")


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_the_paper(name: str, kind: str) -> None:
    known = oracle(name)
    outputs, targets = known.case(kind)
    assert float(known.METHOD.loss(outputs, targets)) == pytest.approx(
        known.loss(outputs, targets), rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_paper(name: str, kind: str) -> None:
    """Along two directions: the oracle's difference quotient."""
    known = oracle(name)
    outputs, targets = known.case(kind)
    moving = [k for k, t in outputs.items() if t.is_floating_point() and k not in getattr(known, "BLIND", ())]
    leaves = {key: outputs[key].clone().requires_grad_() for key in moving}
    gradient = torch.autograd.grad(known.METHOD.loss({**outputs, **leaves}, targets), list(leaves.values()))
    for number in range(2):
        directions = {key: draw(f"direction {number} {key}", *outputs[key].shape) for key in moving}
        for key in set(getattr(known, "UNIT", ())) & set(moving):  # rows keep their length
            rows = outputs[key]
            directions[key] -= (directions[key] * rows).sum(-1, keepdim=True) * rows
        step = 1e-7
        up, down = (
            known.loss({**outputs, **{key: outputs[key] + sign * step * directions[key] for key in moving}}, targets)
            for sign in (1, -1)
        )
        slope = sum(float((g * directions[key]).sum()) for g, key in zip(gradient, moving, strict=True))
        length = sum(float(g.square().sum()) for g in gradient) ** 0.5
        assert slope == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-5 * length + 1e-7)


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1e-3, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_stay_finite(name: str, kind: str, temperature: float, dtype: torch.dtype) -> None:
    if name == "w_mse" and dtype == torch.bfloat16:
        pytest.skip("torch has no Cholesky factorisation in bfloat16; the engine gives losses float32")
    known = oracle(name)
    names = [field.name for field in dataclasses.fields(known.METHOD) if "temperature" in field.name]
    method = dataclasses.replace(known.METHOD, **dict.fromkeys(names, temperature))
    outputs, targets = (
        {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in group.items()}
        for group in known.case(kind)
    )
    leaves = {key: tensor.requires_grad_() for key, tensor in outputs.items() if tensor.is_floating_point()}
    loss = method.loss({**outputs, **leaves}, targets)
    assert loss.isfinite()
    for gradient in torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("kind", [*KINDS, "far from zero", "all but equal"])
def test_float32_cancels_nothing(name: str, kind: str) -> None:
    """Value and gradient of the same float32 inputs, computed in float32 and in float64."""
    known = oracle(name)
    outputs, targets = known.case(kind if kind in KINDS else "random")
    if kind == "far from zero":
        outputs = {key: tensor + 30 if key in ("z", "p", "h") else tensor for key, tensor in outputs.items()}
    elif kind == "all but equal":  # views, and the images of each
        near = {key: outputs[key][:1] + 1e-3 * outputs[key] for key in ("z", "p") if key in outputs}
        outputs = {**outputs, **near}
    found = []
    for dtype in (torch.float32, torch.float64):
        ours, theirs = (
            {key: tensor.float().to(dtype) if tensor.is_floating_point() else tensor for key, tensor in group.items()}
            for group in (outputs, targets)
        )
        leaves = {key: tensor.requires_grad_() for key, tensor in ours.items() if tensor.is_floating_point()}
        loss = known.METHOD.loss({**ours, **leaves}, theirs)
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        found.append((loss.item(), torch.cat([gradient.double().flatten() for gradient in gradients])))
    (single, gradient), (double, wanted) = found
    assert single == pytest.approx(double, rel=1e-5, abs=1e-6)
    assert (gradient - wanted).norm() <= 1e-3 * wanted.norm() + 1e-6


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("kind", KINDS)
def test_every_output_gets_its_gradient_and_no_other(name: str, kind: str) -> None:
    known = oracle(name)
    outputs, targets = known.case(kind)
    blind = getattr(known, "BLIND", ())
    names = [key for key, tensor in outputs.items() if tensor.is_floating_point()]
    leaves = [outputs[key].clone().requires_grad_() for key in names]

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return known.METHOD.loss({**outputs, **dict(zip(names, tensors, strict=True))}, targets)

    gradients = torch.autograd.grad(loss(*leaves), leaves, materialize_grads=True)
    for key, gradient in zip(names, gradients, strict=True):
        assert gradient.isfinite().all()
        if key in blind:
            assert not gradient.any(), f"{key} stands under a stop-gradient"
        elif kind == "random":
            assert gradient.any(), f"{key} gets no gradient"
    if getattr(known, "DIFFERENTIABLE", True):
        # near collapse the landscape turns fast: a step well below the spread of 1e-3
        assert torch.autograd.gradcheck(loss, leaves, eps=1e-7, atol=1e-4, rtol=1e-4)
        if kind == "random":
            assert torch.autograd.gradgradcheck(loss, leaves, atol=1e-5)
