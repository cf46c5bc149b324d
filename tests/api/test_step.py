"""`gessl.step` against loops without the engine, against the house's own step, and what it leaves alone."""

import copy
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel

import gessl
from gessl.bilevel.settings import GesslSettings, solver_named
from gessl.errors import UserError
from gessl.methods import method_class
from gessl.training import smooth
from gessl.training.step import outer_gradient
from tests.support.scheme import rated

TAU = 0.5
RATE = 0.02


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def contrast(a: Tensor, b: Tensor) -> Tensor:
    """A smooth SSL loss: each item of one view shall find itself among those of the other."""
    similarity = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.3
    return F.cross_entropy(similarity, torch.arange(len(a)))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double().train()


def linear() -> nn.Module:
    return seeded(lambda: nn.Linear(5, 3, bias=False))


def conv() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(4, 3),
        )
    )  # fmt: skip


def attention() -> nn.Module:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.layer(tokens).mean(1)

    return seeded(Tokens)


LINEAR = [draw(6, 5, seed=1), draw(6, 5, seed=2)]
IMAGES = [draw(6, 2, 5, 5, seed=1), draw(6, 2, 5, 5, seed=2)]
TOKENS = [draw(6, 4, 6, seed=1), draw(6, 4, 6, seed=2)]
KINDS = {"linear": (linear, LINEAR), "conv": (conv, IMAGES), "attention": (attention, TOKENS)}
Params = dict[str, Tensor]


def kl_both_ways(z: list[Tensor], target: list[Tensor]) -> Tensor:
    """KL(adapted ‖ target) of posteriors over the mini-batch, one sample and one class after the other."""
    total = torch.zeros((), dtype=torch.float64)
    for samples, anchors in ((0, 1), (1, 0)):
        for i in range(len(z[0])):
            both = []
            for views in (z, target):
                cosines = [torch.cosine_similarity(views[samples][i], anchor, dim=0) for anchor in views[anchors]]
                both.append(torch.stack(cosines).div(TAU).softmax(0))
            total = total + sum(p * (p / q).log() for p, q in zip(*both, strict=True))
    return total / (2 * len(z[0]))


def by_hand(
    call: Callable[[Params, Tensor], Tensor], start: Params, views: list[Tensor], inner: int, target: int
) -> tuple[float, Params]:
    """J and ∇J by plain autograd through the whole path."""

    def loss_at(params: Params) -> Tensor:
        return contrast(*(call(params, view) for view in views))

    def moved(params: Params, graph: bool) -> Params:
        gradients = torch.autograd.grad(loss_at(params), list(params.values()), create_graph=graph)
        return {name: p - RATE * g for (name, p), g in zip(params.items(), gradients, strict=True)}

    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in start.items()}
    theta = dict(leaves)
    for _ in range(inner):
        theta = moved(theta, True)
    there = {name: tensor.detach().requires_grad_() for name, tensor in theta.items()}
    for _ in range(target):
        there = {name: tensor.detach().requires_grad_() for name, tensor in moved(there, False).items()}
    fixed = [call(there, view).detach() for view in views]
    outer = 0.7 * kl_both_ways([call(theta, view) for view in views], fixed) + 0.4 * loss_at(leaves)
    gradients = torch.autograd.grad(outer, list(leaves.values()))
    return outer.item(), dict(zip(leaves, gradients, strict=True))


def gradients_of(module: nn.Module) -> Params:
    return {name: tensor.grad for name, tensor in module.named_parameters() if tensor.grad is not None}


def assert_close(found: Params, expected: Params, rtol: float = 1e-9) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=rtol, atol=rtol * 1e-2), name


@pytest.mark.parametrize(("inner", "target"), [(1, 1), (1, 5), (3, 2), (2, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_whole_path_by_plain_autograd(kind: str, inner: int, target: int) -> None:
    make, views = KINDS[kind]
    module = make()
    pristine = copy.deepcopy(module)

    def call(params: Params, view: Tensor) -> Tensor:
        buffers = {name: tensor.clone() for name, tensor in pristine.named_buffers()}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return functional_call(pristine, {**params, **buffers}, (view,))

    value, expected = by_hand(call, dict(pristine.named_parameters()), views, inner, target)
    taken = gessl.step(
        module, contrast, views, None, inner_lr=RATE, inner_steps=inner, target_steps=target, kl_weight=0.7,
        base_weight=0.4, temperature=TAU,
    )  # fmt: skip
    assert_close(gradients_of(module), expected)
    assert taken.loss == pytest.approx(value, rel=1e-9)
    assert not taken.climbs


def test_a_linear_model_by_matrices_alone() -> None:
    """W as a leaf of its own: not even `functional_call` is shared with what is tested."""
    module = linear()
    value, expected = by_hand(lambda params, view: view @ params["weight"].T, {"weight": module.weight}, LINEAR, 1, 2)
    taken = gessl.step(module, contrast, LINEAR, None, inner_lr=RATE, target_steps=2, kl_weight=0.7, base_weight=0.4)
    assert_close(gradients_of(module), expected)
    assert taken.loss == pytest.approx(value, rel=1e-9)
    assert taken.gradient_norm == pytest.approx(expected["weight"].norm().item())


def test_it_is_the_houses_own_step() -> None:
    """Barlow Twins as a base method of the house, and as a module and a loss of one's own."""
    learner, variables = smooth.learner(smooth.narrow(method_class("barlow_twins")()))
    batch, buffers = smooth.task(learner)[0], variables.buffers
    settings = rated(inner_steps=2, target_steps=3, inner_lr=RATE, solver=solver_named("unroll"))
    expected = outer_gradient(learner, variables, [[batch]], settings)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = copy.deepcopy(learner._net)

        def forward(self, images: Tensor) -> Tensor:
            return self.net["projector"](self.net["encoder"](images))

    module = Whole().double()
    with torch.no_grad():
        for name, tensor in module.net.named_parameters():
            tensor.copy_(variables.params[name])
        for name, tensor in module.net.named_buffers():
            tensor.copy_(buffers[name])
    taken = gessl.step(
        module, lambda a, b: learner.method.loss({"z": torch.stack([a, b])}, {}), list(batch.views), None,
        inner_lr=RATE, inner_steps=2, target_steps=3,
    )  # fmt: skip
    assert_close(gradients_of(module.net), expected.gradient)
    assert taken.loss == pytest.approx(float(expected.logs["loss"]), rel=1e-9)
    for name, tensor in module.net.named_buffers():
        assert torch.allclose(tensor, expected.buffers[name], rtol=1e-12), name


OPTIMIZERS: list[Callable[[Any], torch.optim.Optimizer]] = [
    lambda params: torch.optim.SGD(params, 0.1, momentum=0.9),
    lambda params: torch.optim.AdamW(params, 0.01),
    lambda params: torch.optim.RMSprop(params, 0.01),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_without_inner_steps_it_is_the_plain_step(kind: str, make: Callable[[Any], torch.optim.Optimizer]) -> None:
    build, views = KINDS[kind]
    ours, plain = build(), build()
    optimizers = make(ours.parameters()), make(plain.parameters())
    for _ in range(3):
        taken = gessl.step(ours, contrast, views, optimizers[0], inner_lr=RATE, inner_steps=0)
        optimizers[1].zero_grad()
        loss = contrast(*map(plain, views))
        loss.backward()
        optimizers[1].step()
        assert taken.loss == taken.base_loss == pytest.approx(loss.item(), rel=1e-12)
        assert taken.divergence == 0
    for (name, found), expected in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-8), name  # Adam divides noise by noise


def test_several_mini_batches_are_averaged() -> None:
    others = [draw(6, 5, seed=3), draw(6, 5, seed=4)]
    found = []
    for views in ([LINEAR], [others], [LINEAR, others]):
        module = linear()
        gessl.step(module, contrast, views, None, inner_lr=RATE)
        found.append(gradients_of(module)["weight"])
    assert torch.allclose((found[0] + found[1]) / 2, found[2], rtol=1e-12)


def test_what_the_loss_detaches_is_held() -> None:
    """SimSiam's loss, exact where the targets stand still: the inner gradient's derivative leaves them out."""

    def symmetric(a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
        pairs = ((a["p"], b["z"].detach()), (b["p"], a["z"].detach()))
        return -sum(F.cosine_similarity(p, z).mean() for p, z in pairs) / 2  # type: ignore[return-value]

    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.predictor = linear(), seeded(lambda: nn.Linear(3, 3))

        def forward(self, items: Tensor) -> dict[str, Tensor]:
            z = self.encoder(items)
            return {"z": z, "p": self.predictor(z)}

    module = Siamese()
    taken = gessl.step(module, symmetric, LINEAR, None, inner_lr=RATE, target_steps=1, kl_weight=0.0)
    expected = copy.deepcopy(module)
    expected.zero_grad()
    symmetric(*map(expected, LINEAR)).backward()
    assert_close(gradients_of(module), gradients_of(expected))
    assert taken.adapted_loss < taken.base_loss


def test_a_dict_of_one_is_a_dict() -> None:
    class One(nn.Linear):
        def forward(self, items: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"z": super().forward(items)}

    module, plain = One(5, 3, bias=False).double(), linear()
    module.load_state_dict(plain.state_dict())
    gessl.step(module, lambda a, b: contrast(a["z"], b["z"]), LINEAR, None, inner_lr=RATE)
    gessl.step(plain, contrast, LINEAR, None, inner_lr=RATE)
    assert torch.equal(gradients_of(module)["weight"], gradients_of(plain)["weight"])


def test_first_order_leaves_out_the_second_derivatives() -> None:
    module, exact = linear(), linear()
    gessl.step(module, contrast, LINEAR, None, inner_lr=RATE, solver="first_order", base_weight=0.0)
    gessl.step(exact, contrast, LINEAR, None, inner_lr=RATE, base_weight=0.0)
    assert not torch.allclose(gradients_of(module)["weight"], gradients_of(exact)["weight"], rtol=1e-6)
    tiny, tiny_exact = linear(), linear()
    gessl.step(tiny, contrast, LINEAR, None, inner_lr=1e-9, solver="first_order")
    gessl.step(tiny_exact, contrast, LINEAR, None, inner_lr=1e-9)
    assert_close(gradients_of(tiny), gradients_of(tiny_exact), 1e-6)


def test_bfloat16_comes_near() -> None:
    module, exact = conv().float(), conv().float()
    views = [view.float() for view in IMAGES]
    gessl.step(module, contrast, views, None, inner_lr=RATE, precision="bfloat16")
    gessl.step(exact, contrast, views, None, inner_lr=RATE)
    found, expected = (torch.cat([grad.flatten() for grad in gradients_of(each).values()]) for each in (module, exact))
    assert F.cosine_similarity(found, expected, dim=0) > 0.98
    assert all(tensor.dtype == torch.float32 for tensor in module.parameters())


def test_dropout_is_differentiated_on_the_path_that_was_walked() -> None:
    """With K = 2 a pass that is computed again would draw other masks, and the gradient would be nobody's."""
    module = seeded(lambda: nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3)))
    exact = copy.deepcopy(module)
    torch.manual_seed(5)
    gessl.step(module, contrast, LINEAR, None, inner_lr=RATE, inner_steps=2, target_steps=0, base_weight=1.0)
    torch.manual_seed(5)
    contrast(*map(exact, LINEAR)).backward()  # the base loss's first pass draws first
    assert_close(gradients_of(module), gradients_of(exact))


def test_frozen_parameters_stay_and_get_no_gradient() -> None:
    module = conv()
    module[0].requires_grad_(False)
    before = module[0].weight.clone()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    gessl.step(module, contrast, IMAGES, optimizer, inner_lr=RATE)
    assert torch.equal(module[0].weight, before) and module[0].weight.grad is None
    assert module[5].weight.grad is not None


def test_batch_norm_counts_one_step_and_keeps_its_class() -> None:
    module, plain = conv(), conv()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    gessl.step(module, contrast, IMAGES, optimizer, inner_lr=RATE, inner_steps=2)
    for view in IMAGES:
        plain(view)
    assert [type(part) for part in module] == [type(part) for part in plain]
    assert torch.allclose(module[1].running_mean, plain[1].running_mean)
    assert int(module[1].num_batches_tracked) == int(plain[1].num_batches_tracked) == 2  # one pass a view
    assert all(part.training for part in module.modules())


def test_a_loop_that_climbs_is_warned_of() -> None:
    module = linear()
    rate = gessl.inner_rate(module, contrast, LINEAR)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gessl.step(module, contrast, LINEAR, None, inner_lr=rate)
    steep = seeded(lambda: nn.Linear(5, 3, bias=False))

    def bowl(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum() + a.square().sum()

    with pytest.warns(UserWarning, match="the inner loop raises the loss.*lower inner_lr"):
        assert gessl.step(steep, bowl, LINEAR, None, inner_lr=0.2, target_steps=1).climbs
    before = state_of(steep)
    with warnings.catch_warnings(), pytest.raises(UserWarning):
        warnings.simplefilter("error")
        gessl.step(steep, bowl, LINEAR, torch.optim.SGD(steep.parameters(), 0.1), inner_lr=0.2, target_steps=1)
    assert_same(before, state_of(steep))


def test_the_inner_rate_is_one_over_the_largest_eigenvalue() -> None:
    module = linear()

    def flat(weights: Tensor) -> Tensor:
        return contrast(*(view @ weights.view(3, 5).T for view in LINEAR))

    hessian = torch.autograd.functional.hessian(flat, module.weight.detach().flatten())
    assert isinstance(hessian, Tensor)
    largest = torch.linalg.eigvalsh(hessian)[-1].item()
    assert gessl.inner_rate(module, contrast, LINEAR) == pytest.approx(1 / largest, rel=0.03)
    assert module.weight.grad is None


def test_training_goes_somewhere() -> None:
    module = conv()
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    losses = []
    for _ in range(30):
        rate = gessl.inner_rate(module, contrast, IMAGES)  # curvature moves, and fast where there is so little data
        losses.append(gessl.step(module, contrast, IMAGES, optimizer, inner_lr=rate / 2).base_loss)
    assert losses[-1] < 0.7 * losses[0]


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 2


def once(a: Tensor, b: Tensor) -> Tensor:
    return contrast(Once.apply(a), Once.apply(b))  # type: ignore[arg-type]


def margins(a: Tensor, b: Tensor) -> Tensor:
    return F.multi_margin_loss(a @ b.T, torch.arange(len(a)))


def bad_loss(a: Tensor, b: Tensor) -> Tensor:
    raise ZeroDivisionError


def named(module: nn.Module, name: str) -> nn.Module:
    """As torch.compile would give it."""
    module._orig_mod = nn.Identity()
    return module


def maps() -> nn.Module:
    return seeded(lambda: nn.Conv2d(2, 3, 3))


def frozen() -> nn.Module:
    return linear().requires_grad_(False)


def zeros() -> nn.Module:
    """As some networks start: the last layer is 0, and a square root of 0 has no gradient."""
    return nn.Sequential(Square(), nn.Linear(5, 3, bias=False)).double()


class Square(nn.Module):
    def forward(self, items: Tensor) -> Tensor:
        return (items - items).abs().sqrt()


def nan() -> nn.Module:
    module = linear()
    nn.init.constant_(module.weight, float("nan"))  # type: ignore[arg-type]
    return module


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no module", {"module": "net"}, "module: got str; give a torch module"),
    ("frozen", {"module": frozen()}, "module: no parameter requires a gradient"),
    ("zeros", {"module": zeros()}, "loss: its gradient is not finite where the loss itself is"),
    ("half", {"module": linear().bfloat16()}, "module: weights in torch.bfloat16; keep them in float32"),
    ("compiled", {"module": named(linear(), "x")}, "module: compiled"),
    ("maps", {"module": maps(), "views": IMAGES}, r"module: gives \[6, 3, 3, 3\] for 6 items"),
    ("nan", {"module": nan()}, "loss: is not finite at the weights themselves"),
    ("diverges", {"inner_lr": 900.0, "loss": lambda a, b: (a - b).pow(4).sum().exp()}, "loss: .*finite|lower inner_lr"),
    ("no gradient", {"loss": lambda a, b: (a - b).detach().mean()}, "loss: has no gradient"),
    ("no tensor", {"loss": lambda a, b: 1.0}, "loss: gives float; it must give one number"),
    ("a row", {"loss": lambda a, b: (a - b).mean(1)}, r"loss: gives a tensor \[6\]"),
    ("learns", {"loss": nn.Linear(3, 1)}, "loss: has parameters of its own"),
    ("marked", {"loss": once}, "module or loss: Once is marked once_differentiable; .*solver='first_order'"),
    ("marked in part", {"loss": lambda a, b: once(a, b) + contrast(a, b)}, "Once is marked once_differentiable"),
    ("no rule", {"loss": margins}, "cannot be differentiated twice .*solver='first_order'"),
    ("text for a loss", {"loss": "simclr"}, "loss: got str; give a function of what the module gives for each view"),
    ("three views", {"views": [*LINEAR, LINEAR[0]]}, "views: 3 a mini-batch, which is not what the loss takes"),
    ("one view", {"views": LINEAR[:1]}, "views: a mini-batch needs two or more tensors"),
    ("a tensor", {"views": torch.stack(LINEAR)}, "views: give a list of two or more tensors"),
    ("none", {"views": []}, "views: give a list of two or more tensors"),
    ("shapes", {"views": [LINEAR[0], LINEAR[1][:4]]}, r"views: have the shapes \[6, 5\], \[4, 5\]"),
    ("one item", {"views": [LINEAR[0][:1], LINEAR[1][:1]]}, r"views: of the shape \[1, 5\]; give two or more items"),
    ("K", {"inner_steps": -1}, "step: inner_steps: must be a whole number, at least 0"),
    ("rate", {"inner_lr": float("nan")}, "step: inner_lr: must be"),
    ("weights", {"kl_weight": 0.0, "base_weight": 0.0}, "it and base_weight are both 0"),
    ("solver", {"solver": "magic"}, "solver: 'magic' is unknown; choose unroll or first_order"),
    ("precision", {"precision": "half"}, "precision: 'half' is unknown"),
]


@pytest.mark.parametrize(("values", "line"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_bad_input_is_one_line_and_leaves_everything_alone(values: dict[str, Any], line: str) -> None:
    given = {"module": linear(), "loss": contrast, "views": LINEAR, "optimizer": None, "inner_lr": RATE, **values}
    module = given["module"]
    before = state_of(module) if isinstance(module, nn.Module) else {}
    with pytest.raises(UserError, match=line) as raised:
        gessl.step(**given)
    assert len(str(raised.value).splitlines()) == 1
    if isinstance(module, nn.Module):
        assert_same(before, state_of(module))


@pytest.mark.parametrize("loss", [once, margins])
def test_what_has_one_derivative_goes_by_first_order(loss: Callable[..., Tensor]) -> None:
    for choice in ({"solver": "first_order"}, {"inner_steps": 0}):
        module = linear()
        gessl.step(module, loss, LINEAR, None, inner_lr=RATE, **choice)  # type: ignore[arg-type]
        assert gradients_of(module)["weight"].isfinite().all()


def test_an_error_of_the_loss_leaves_everything_alone() -> None:
    calls = []

    def fails_late(a: Tensor, b: Tensor) -> Tensor:
        calls.append(1)
        return contrast(a, b) if len(calls) < 4 else bad_loss(a, b)

    module = conv()
    module[1].eval()
    before = state_of(module)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    with pytest.raises(ZeroDivisionError):
        gessl.step(module, fails_late, IMAGES, optimizer, inner_lr=RATE)
    assert_same(before, state_of(module))


def state_of(module: nn.Module) -> dict[str, Any]:
    tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    modes = {f"{name} mode": part.training for name, part in module.named_modules()}
    kinds = {f"{name} class": type(part) for name, part in module.named_modules()}
    grads = {f"{name} grad": tensor.grad for name, tensor in module.named_parameters()}
    return {**tensors, **modes, **kinds, **grads}


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for name, value in before.items():
        if isinstance(value, Tensor):
            assert torch.equal(value.nan_to_num(7.0), after[name].nan_to_num(7.0)), name
        else:
            assert value == after[name], name


def test_optimizers_that_hold_other_parameters_are_refused() -> None:
    module, other = conv(), linear()
    cases = [
        (
            torch.optim.SGD([*module.parameters(), *other.parameters()], 0.1),
            r"holds a tensor \[3, 5\] that is no param",
        ),
        (torch.optim.SGD(module[0].parameters(), 0.1), "lacks the module's 1.weight"),
        (torch.optim.LBFGS(module.parameters()), "optimizer: LBFGS"),
        ("sgd", "optimizer: str"),
    ]
    for optimizer, line in cases:
        with pytest.raises(UserError, match=line):
            gessl.step(module, contrast, IMAGES, optimizer, inner_lr=RATE)  # type: ignore[arg-type]


def test_weights_without_a_shape_are_refused() -> None:
    module = nn.LazyLinear(3)
    with pytest.raises(UserError, match="module: has weights without a shape yet; pass a mini-batch"):
        gessl.step(module, contrast, LINEAR, None, inner_lr=RATE)
    assert module.has_uninitialized_params()


def test_autocast_is_refused() -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(UserError, match="autocast is on; call it outside"):
        gessl.step(linear().float(), contrast, [view.float() for view in LINEAR], None, inner_lr=RATE)


def test_modules_that_processes_share_are_refused(tmp_path: Any) -> None:
    store = f"file://{tmp_path}/store"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        module = DistributedDataParallel(linear())
        with pytest.raises(UserError, match="module: spread over devices or processes"):
            gessl.step(module, contrast, LINEAR, None, inner_lr=RATE)
    finally:
        dist.destroy_process_group()


def test_no_gradient_may_be_off_around_it() -> None:
    module, expected = linear(), linear()
    gessl.step(expected, contrast, LINEAR, None, inner_lr=RATE)
    with torch.no_grad():
        gessl.step(module, contrast, LINEAR, None, inner_lr=RATE)
    assert torch.equal(gradients_of(module)["weight"], gradients_of(expected)["weight"])


def test_tied_weights_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = seeded(lambda: nn.Linear(5, 5)), seeded(lambda: nn.Linear(5, 5))
            self.b.weight = self.a.weight

        def forward(self, items: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(items)))

    def call(params: Params, view: Tensor) -> Tensor:
        inside = torch.tanh(F.linear(view, params["a.weight"], params["a.bias"]))
        return F.linear(inside, params["a.weight"], params["b.bias"])

    module = Tied()
    _, expected = by_hand(call, dict(module.named_parameters()), LINEAR, 1, 2)
    gessl.step(module, contrast, LINEAR, None, inner_lr=RATE, target_steps=2, kl_weight=0.7, base_weight=0.4)
    assert_close(gradients_of(module), expected)
    assert module.a.weight is module.b.weight


def test_names_that_mean_something_to_the_engine_are_only_names() -> None:
    """A rate or a guide of the engine's has a prefix; a user's own may be called the same."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner_lr, self.guide = linear(), seeded(lambda: nn.Linear(3, 3))

        def forward(self, items: Tensor) -> Tensor:
            return self.guide(self.inner_lr(items))

    odd, plain = Odd(), seeded(lambda: nn.Sequential(nn.Identity(), nn.Identity()))
    plain[0], plain[1] = copy.deepcopy(odd.inner_lr), copy.deepcopy(odd.guide)
    for module in (odd, plain):
        gessl.step(module, contrast, LINEAR, None, inner_lr=RATE)
    found, expected = ([tensor.grad for tensor in module.parameters()] for module in (odd, plain))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))  # type: ignore[arg-type]


def test_defaults_are_the_experiments() -> None:
    import inspect

    defaults = {name: each.default for name, each in inspect.signature(gessl.step).parameters.items()}
    for name in ("inner_steps", "target_steps", "kl_weight", "temperature"):
        assert defaults[name] == getattr(GesslSettings, name)
    assert defaults["base_weight"] == GesslSettings.ssl_weight


def test_a_fresh_process_takes_a_step() -> None:
    code = """
import gessl, torch
net = torch.nn.Linear(4, 2)
views, optimizer = [torch.rand(5, 4), torch.rand(5, 4)], torch.optim.SGD(net.parameters(), 0.1)
print(gessl.step(net, lambda a, b: (a - b).square().mean(), views, optimizer, inner_lr=0.1))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("OuterStep(loss=")
