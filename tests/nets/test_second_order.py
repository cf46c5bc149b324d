"""The closed forms against finite differences, and whole networks against torch's own derivatives."""

import copy
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from gessl.nets.second_order import plain_layers, second_order
from gessl.rng import generator

Net = Callable[[], nn.Module]


def draw(*shape: int, name: str = "x") -> Tensor:
    return torch.randn(shape, generator=generator(0, "second order", name), dtype=torch.float64)


class Small(nn.Module):
    """Conv-BN-φ-Conv-BN-φ-mean and a Linear-BN head, with everything that a swap may meet."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            activation(),
            nn.Conv2d(4, 6, 3, stride=2, groups=2),
            nn.BatchNorm2d(6, affine=False, momentum=0.3),
            activation(),
        )
        self.head = nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5, track_running_stats=False))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean((2, 3)))


def pair(make: Net = Small) -> tuple[nn.Module, nn.Module]:
    """The same network twice, in float64: (torch's, swapped)."""
    torch.manual_seed(0)
    net = make().double()
    for norm in net.modules():  # away from the identity, where errors hide
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
    return net, second_order(copy.deepcopy(net))


def loss(net: nn.Module, images: Tensor, params: dict[str, Tensor]) -> Tensor:
    outputs = functional_call(net, params, (images,))
    return torch.tanh(outputs).pow(3).flatten().dot(draw(outputs.numel(), name="loss").to(outputs.dtype))


def leaves(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in net.named_parameters()}


def derivatives(net: nn.Module, images: Tensor, vectors: list[Tensor] | None = None) -> list[Tensor]:
    """Loss, gradient, Hessian-vector product, by the parameters and, where they want it, by the images."""
    params = leaves(net)
    inputs = [*params.values(), *([images] if images.requires_grad else [])]
    value = loss(net, images, params)
    gradient = torch.autograd.grad(value, inputs, create_graph=True)
    vectors = vectors or [draw(*tensor.shape, name="vector").to(tensor.dtype) for tensor in inputs]
    return [value, *gradient, *torch.autograd.grad(gradient, inputs, vectors)]


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


GEOMETRIES = {
    "3x3": ({"kernel_size": 3}, (2, 3, 4, 5)),
    "strided, padded, bias": ({"kernel_size": 3, "stride": 2, "padding": 1}, (2, 3, 5, 4)),
    "grouped, uneven": ({"kernel_size": (3, 2), "stride": (1, 2), "padding": (0, 1), "groups": 2}, (2, 4, 4, 3)),
    "dilated": ({"kernel_size": 2, "dilation": 2, "padding": 1}, (2, 3, 4, 4)),
    "1x1, strided, a row left over": ({"kernel_size": 1, "stride": 2}, (2, 3, 4, 4)),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolution_against_finite_differences(geometry: str, bias: bool) -> None:
    settings, shape = GEOMETRIES[geometry]
    conv = second_order(nn.Conv2d(shape[1], 4, bias=bias, **settings).double())
    params = leaves(conv)

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return functional_call(conv, dict(zip(params, values, strict=True)), (x,))

    inputs = (draw(*shape).requires_grad_(), *params.values())
    assert gradcheck(call, inputs)
    assert gradgradcheck(call, inputs)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 0.7])
@pytest.mark.parametrize("shape", [(5, 3), (3, 2, 4), (3, 2, 2, 3)], ids=str)
def test_batch_norm_against_finite_differences(shape: tuple[int, ...], eps: float, affine: bool) -> None:
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    norm = second_order(kind(shape[1], eps=eps, affine=affine).double())
    params = {name: draw(shape[1], name=name).requires_grad_() for name, _ in norm.named_parameters()}

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return functional_call(norm, dict(zip(params, values, strict=True)), (x,))

    # a far mean, as after a ReLU
    inputs = ((draw(*shape) + 2).requires_grad_(), *params.values())
    assert gradcheck(call, inputs)
    assert gradgradcheck(call, inputs)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("by_images", [True, False])
def test_a_network_has_torchs_derivatives(by_images: bool, layout: torch.memory_format) -> None:
    net, swapped = pair()
    images = draw(6, 2, 7, 7).to(memory_format=layout).requires_grad_(by_images)
    close(derivatives(swapped, images), derivatives(net, images))


@pytest.mark.parametrize("make", [Small, lambda: nn.BatchNorm2d(2), lambda: nn.Conv2d(2, 3, 3)])
def test_derivatives_by_some_parameters_only(make: Net) -> None:
    """Each parameter alone: most cotangents of a backward pass are then missing."""
    net, swapped = pair(make)
    images = draw(6, 2, 7, 7)
    for chosen in leaves(net):
        found = []
        for one in (net, swapped):
            params = leaves(one)
            (gradient,) = torch.autograd.grad(loss(one, images, params), params[chosen], create_graph=True)
            vector = draw(*gradient.shape, name="vector")
            found.append([gradient, *torch.autograd.grad(gradient, list(params.values()), vector, allow_unused=True)])
        for one, other in zip(*found, strict=True):
            # where torch says "unused", a zero is as good
            zero = torch.zeros(())
            torch.testing.assert_close(
                *torch.broadcast_tensors(zero if one is None else one, zero if other is None else other),
                rtol=1e-8,
                atol=1e-9,
                check_dtype=False,
            )


def test_frozen_parameters_get_none() -> None:
    net, swapped = pair()
    for one in (net, swapped):
        one.body[1].requires_grad_(False)
        one.body[3].requires_grad_(False)
    found = []
    for one in (net, swapped):
        params = {name: tensor for name, tensor in one.named_parameters() if tensor.requires_grad}
        value = loss(one, draw(6, 2, 7, 7), {})
        gradient = torch.autograd.grad(value, list(params.values()), create_graph=True)
        found.append(torch.autograd.grad(gradient, list(params.values()), [g.detach() for g in gradient]))
    close(list(found[1]), list(found[0]))


def test_buffers_follow_torchs() -> None:
    net, swapped = pair()
    for step in range(3):
        images = draw(6, 2, 7, 7, name=f"step {step}") + step
        for one in (net, swapped):
            one.body[4].track_running_stats = step != 2  # may be switched off on the way
            with torch.set_grad_enabled(step != 1):
                one(images)
    expected = dict(net.named_buffers())
    assert [int(expected[f"body.{layer}.num_batches_tracked"]) for layer in (1, 4)] == [3, 2]
    for name, buffer in swapped.named_buffers():
        torch.testing.assert_close(buffer, expected[name])


def test_functional_call_writes_into_the_buffers_it_is_given() -> None:
    net, swapped = pair()
    written = []
    for one in (net, swapped):
        own = {name: tensor.clone() for name, tensor in one.named_buffers()}
        given = {name: tensor.clone() + 1 for name, tensor in own.items()}
        functional_call(one, {**leaves(one), **given}, (draw(6, 2, 7, 7),))
        assert all(torch.equal(tensor, own[name]) for name, tensor in one.named_buffers())
        written.append(given)
    assert int(written[1]["body.1.num_batches_tracked"]) == 2
    torch.testing.assert_close(written[1], written[0])


def test_eval_mode_uses_the_running_statistics() -> None:
    net, swapped = pair(lambda: Small(nn.Tanh))
    for one in (net, swapped):
        one(draw(6, 2, 7, 7))
        one.eval()
    before = copy.deepcopy(swapped.state_dict())
    images = draw(6, 2, 7, 7, name="others").requires_grad_()
    close(derivatives(swapped, images), derivatives(net, images))
    assert all(torch.equal(tensor, before[name]) for name, tensor in swapped.state_dict().items())


def test_state_dict_and_types() -> None:
    net, swapped = pair()
    assert list(swapped.state_dict()) == list(net.state_dict())
    assert [isinstance(new, type(old)) for new, old in zip(swapped.modules(), net.modules(), strict=True)].count(0) == 0
    changed = {name for name, module in swapped.named_modules() if type(module) is not type(net.get_submodule(name))}
    assert changed == {"body.0", "body.1", "body.3", "body.4", "head.1"}
    kinds = [type(module) for module in swapped.modules()]
    assert [type(module) for module in second_order(swapped).modules()] == kinds  # once more changes nothing


class OwnConv(nn.Conv2d):
    """A subclass may do what it likes in its forward pass."""


OTHERS = [
    OwnConv(2, 2, 3),
    nn.Conv1d(2, 2, 3),
    nn.Conv2d(2, 2, 3, padding="same"),
    nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
    nn.ConvTranspose2d(2, 2, 3),
    nn.BatchNorm2d(2, momentum=None),
    nn.BatchNorm3d(2),
    nn.Linear(2, 2),
]


@pytest.mark.parametrize("module", OTHERS, ids=repr)
def test_other_modules_are_left_alone(module: nn.Module) -> None:
    kind = type(module)
    assert second_order(nn.Sequential(module))[0] is module
    assert type(module) is kind


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.BatchNorm1d(2), (1, 2)),
        (nn.BatchNorm1d(2), (3, 2, 2, 2)),
        (nn.BatchNorm2d(2), (3, 2)),
        (nn.Conv2d(2, 2, 3), (4, 4)),
    ],
    ids=str,
)
def test_bad_shapes_fail_as_torchs_do(module: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises((ValueError, RuntimeError)) as expected:
        module(torch.zeros(shape))
    with pytest.raises(type(expected.value)) as found:
        second_order(copy.deepcopy(module))(torch.zeros(shape))
    assert str(found.value) == str(expected.value)


def test_one_image_without_a_batch() -> None:
    conv, swapped = pair(lambda: nn.Conv2d(2, 3, 3))
    torch.testing.assert_close(swapped(draw(2, 5, 5)), conv(draw(2, 5, 5)))


def cosine(one: list[Tensor], other: list[Tensor]) -> float:
    flat = [torch.cat([tensor.double().flatten() for tensor in tensors]) for tensors in (one, other)]
    return float(nn.functional.cosine_similarity(*flat, dim=0))


def test_bfloat16_autocast_is_near_float64() -> None:
    """And no further away than torch's own; all gradients have their parameter's dtype."""
    net, swapped = pair(lambda: Small(nn.Tanh))
    images = draw(32, 2, 7, 7)
    exact = derivatives(net, images)
    rough = []
    for one in (net, swapped):
        one.float()
        with torch.autocast("cpu", torch.bfloat16):
            rough.append(derivatives(one, images.float()))
        assert {tensor.dtype for tensor in rough[-1][1:]} == {torch.float32}
        assert cosine(rough[-1][len(leaves(one)) + 1 :], exact[len(leaves(one)) + 1 :]) > 0.99
    errors = [sum(float((a - b).detach().norm()) for a, b in zip(found, exact, strict=True)) for found in rough]
    assert errors[1] < 1.5 * errors[0]
    assert errors[1] > 1e-4  # it did run in bfloat16


def test_bfloat16_batch_norm_sums_in_float32() -> None:
    """8192 values per channel: a bfloat16 sum would stop growing at 256."""
    norm = second_order(nn.BatchNorm2d(2))
    inputs = [draw(32, 2, 16, 16, name=name).bfloat16() for name in ("x", "dy", "u")]
    results = []
    for one, dtype in ((norm, torch.bfloat16), (nn.BatchNorm2d(2).double(), torch.float64)):
        x, dy, u = (tensor.to(dtype).requires_grad_() for tensor in inputs)
        dx, dw = torch.autograd.grad(one(x), [x, one.weight], dy, create_graph=True)
        found = torch.autograd.grad([dx, dw], [x, dy, one.weight], [u, torch.ones_like(dw)])
        assert [t.dtype for t in found] == [x.dtype, dy.dtype, one.weight.dtype]
        results.append(found)
    for rough, exact in zip(*results, strict=True):
        assert float((rough - exact).norm() / exact.norm()) < 0.01


def test_a_backward_pass_under_autocast_keeps_the_dtype_of_the_forward_pass() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"  # autocast casts `aten.convolution` on the former only
    _, swapped = pair(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 2, 3)))
    swapped.float().to(device)
    images, params = draw(6, 2, 7, 7).float().to(device), leaves(swapped)
    value = functional_call(swapped, params, (images,)).pow(3).sum()
    gradient = torch.autograd.grad(value, list(params.values()), create_graph=True)
    vectors = [tensor.detach() for tensor in gradient]
    once = torch.autograd.grad(gradient, list(params.values()), vectors, retain_graph=True)
    with torch.autocast(device, torch.bfloat16):
        again = torch.autograd.grad(gradient, list(params.values()), vectors)
    torch.testing.assert_close(again, once)


def test_forward_over_reverse_agrees() -> None:
    _, swapped = pair(lambda: Small(nn.Tanh))
    images, params = draw(6, 2, 7, 7), leaves(swapped)
    vectors = {name: draw(*tensor.shape, name="vector") for name, tensor in params.items()}
    expected = derivatives(swapped, images, list(vectors.values()))[len(params) + 1 :]

    def call(params: dict[str, Tensor]) -> Tensor:
        # torch.func lets no tensor from outside be written into
        return loss(swapped, images, {**params, **{name: t.clone() for name, t in swapped.named_buffers()}})

    _, found = torch.func.jvp(torch.func.grad(call), (params,), (vectors,))
    close([found[name] for name in params], expected)


def test_dual_numbers_agree() -> None:
    """Forward mode without torch.func; only weights are dual, as in the first layer."""
    _, swapped = pair(lambda: Small(nn.Tanh))
    images, params = draw(6, 2, 7, 7), leaves(swapped)
    vectors = [draw(*tensor.shape, name="vector") for tensor in params.values()]
    _, *rest = derivatives(swapped, images, vectors)
    with forward_ad.dual_level():
        dual = {name: forward_ad.make_dual(t, v) for (name, t), v in zip(params.items(), vectors, strict=True)}
        tangent = forward_ad.unpack_dual(loss(swapped, images, dual)).tangent
    assert tangent is not None
    torch.testing.assert_close(tangent, sum((g * v).sum() for g, v in zip(rest, vectors, strict=False)))


def test_compiled_equals_eager() -> None:
    """A gradient taken of a compiled pass, and a Hessian-vector product compiled as a whole."""
    _, swapped = pair(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh()))
    images, params, weights = draw(6, 2, 7, 7), leaves(swapped), draw(6, 4, 5, 5, name="loss")
    vectors = {name: draw(*tensor.shape, name="vector") for name, tensor in params.items()}

    def value(params: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return (functional_call(swapped, {**params, **buffers}, (images,)) * weights).sum()

    def product(params: dict[str, Tensor], buffers: dict[str, Tensor]) -> dict[str, Tensor]:
        gradient = torch.func.grad(lambda p: value(p, {name: tensor.clone() for name, tensor in buffers.items()}))
        return torch.func.vjp(gradient, params)[1](vectors)[0]

    results = []
    for compiled in (False, True):
        calls = [torch.compile(f, fullgraph=True, backend="aot_eager") if compiled else f for f in (value, product)]
        buffers = {name: tensor.clone() for name, tensor in swapped.named_buffers()}
        gradient = torch.autograd.grad(calls[0](params, buffers), list(params.values()))
        results.append([*gradient, *buffers.values(), *calls[1](params, buffers).values()])
    close(*results)


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(2, 3, 3), lambda: nn.BatchNorm2d(2)])
@pytest.mark.parametrize("constant", [True, False])
def test_a_third_derivative_is_refused(make: Net, constant: bool) -> None:
    """Also along a constant vector, where the third derivative comes from the saved tensors alone."""
    _, swapped = pair(make)
    params = list(swapped.parameters())
    gradient = torch.autograd.grad(loss(swapped, draw(6, 2, 5, 5), {}), params, create_graph=True)
    vectors = [g.detach() if constant else g for g in gradient]
    with pytest.raises(RuntimeError, match="no third derivative"):
        torch.autograd.grad(gradient, params, vectors, create_graph=True)


def test_cost_of_a_hessian_vector_product() -> None:
    """6 forward passes per convolution through a stored gradient; 2 in the first, whose images need no gradient."""
    widths = (3, 4, 6, 5)
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(*w, 3, padding=1), nn.Tanh()) for w in pairwise(widths)]
    net = second_order(nn.Sequential(*blocks))
    images, forward = torch.randn(4, 3, 8, 8), []
    for block in blocks:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            images = block(images)
        forward.append(counter.get_total_flops())
    params = list(net.parameters())
    gradient = torch.autograd.grad(net(torch.randn(4, 3, 8, 8)).square().sum(), params, create_graph=True)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(gradient, params, [g.detach() for g in gradient])
    assert counter.get_total_flops() == pytest.approx(2 * forward[0] + 6 * sum(forward[1:]), rel=0.01)


def test_plain_layers_are_torchs_own_and_only_within_the_block() -> None:
    swapped = second_order(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)))
    images = torch.randn(4, 2, 6, 6, generator=generator(0, "images"))
    with plain_layers():
        inside = swapped(images)
    outside = swapped(images)
    assert type(inside.grad_fn).__name__ == "NativeBatchNormBackward0"
    assert type(outside.grad_fn).__name__ == "_BatchNormBackward"
    torch.testing.assert_close(inside, outside)
