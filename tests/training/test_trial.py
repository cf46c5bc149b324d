"""What a plug-in's author may get wrong in its functions is one line at the start; what is right raises no alarm."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.errors import UserError, printable
from gessl.methods.base import Batch, Method, Tensors
from gessl.methods.learner import Learner
from gessl.nets.heads import mlp
from gessl.rng import generator
from gessl.training.trial import Trial, try_out
from tests.bilevel.smooth import IMAGES, METHODS, TanhEncoder, task
from tests.methods.test_learner import bound, on, views


@dataclass(frozen=True)
class Sound(Method):
    """Views agree, features keep their variance."""

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": mlp(features, 7, 6), "predictor": nn.Linear(6, 6)}

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        outputs = self.project(net, batch)
        return {**outputs, "p": net["predictor"](outputs["z"])}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        z, p = outputs["z"], outputs["p"]
        return (p[0] - z[1]).square().mean() - 0.5 * (z.var(1) + 1e-4).sqrt().mean()


def tried(method: Method, **options: object) -> None:
    """Try a method on a small network in float32, as a run does."""
    torch.manual_seed(0)
    learner = Learner(method, TanhEncoder(), generator(0, "heads"), images=IMAGES, **options)
    try_out(Trial("mine", learner, on("cpu", learner.init()), views(learner, "cpu")[0]))


def loss_that(function: Callable[[Tensors, Tensors], object]) -> Method:
    return type("Faulty", (Sound,), {"loss": lambda self, outputs, targets: function(outputs, targets)})()


def forward_that(function: Callable[[Tensors, nn.ModuleDict, Batch], object]) -> Method:
    def forward(self: Sound, net: nn.ModuleDict, batch: Batch) -> object:
        return function(Sound.forward(self, net, batch), net, batch)

    return type("Faulty", (Sound,), {"forward": forward})()


def targets_that(source: str, function: Callable[[Tensors, Tensors], object], **more: object) -> Method:
    own = {"targets": lambda self, outputs, state, project, batch: function(outputs, state), "source": source, **more}
    return type("Faulty", (Sound,), own)()


def agreement(z: Tensor, other: Tensor) -> Tensor:
    return (z[0] - other[1]).square().mean()


def without_graph(function: Callable[[], Tensor], mode: Callable[[], contextlib.AbstractContextManager]) -> Tensor:
    with mode():
        return function()


CUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "detach": lambda z: z.detach(),
    "data": lambda z: z.data,
    "no_grad": lambda z: without_graph(lambda: z * 1, torch.no_grad),
    "inference_mode": lambda z: without_graph(lambda: z * 1, torch.inference_mode).clone(),
    "set_grad_enabled": lambda z: without_graph(lambda: z * 1, lambda: torch.set_grad_enabled(False)),
    "tolist": lambda z: torch.tensor(z.tolist(), dtype=z.dtype),
    "numpy": lambda z: torch.from_numpy(z.detach().numpy().copy()),
    "straight through": lambda z: z + (z.tanh() - z).detach(),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("cut", CUTS)
def test_a_stop_gradient_in_a_loss_is_told(cut: str, precision: str) -> None:
    method = loss_that(lambda outputs, targets: agreement(outputs["p"], CUTS[cut](outputs["z"])))
    with pytest.raises(UserError, match=r"method 'mine': loss: its gradient by 'z' is not its derivative: .*targets$"):
        tried(method, precision=precision)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["h", "z", "p"])
@pytest.mark.parametrize("cut", ["detach", "data", "no_grad", "straight through"])
def test_a_stop_gradient_in_the_network_is_told(cut: str, name: str, precision: str) -> None:
    method = forward_that(lambda outputs, net, batch: {**outputs, name: CUTS[cut](outputs[name])})
    with pytest.raises(UserError, match=f"method 'mine': forward: the gradient of '{name}' is not its derivative"):
        tried(method, precision=precision)


class Stopped(nn.Linear):
    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(rows.detach())


def test_a_stop_gradient_in_a_head_is_told() -> None:
    heads = {"projector": mlp(TanhEncoder.features, 7, 6), "predictor": Stopped(6, 6)}
    with pytest.raises(UserError, match="'mine': forward: the gradient of 'p' is not its derivative"):
        tried(type("Faulty", (Sound,), {"heads": lambda self, features: heads})())


def test_a_stop_gradient_in_targets_that_the_engine_may_move_is_told() -> None:
    faulty = targets_that("outputs", lambda outputs, state: {"t": F.normalize(outputs["z"].detach(), dim=-1)})
    with pytest.raises(UserError, match="'mine': targets: the gradient of 't' is not its derivative"):
        tried(faulty)


COUNT = [0.0]


def counted(outputs: Tensors, targets: Tensors) -> Tensor:
    COUNT[0] += 1.0
    return Sound().loss(outputs, targets) * COUNT[0]


def written(outputs: Tensors, targets: Tensors) -> Tensor:
    outputs["z"] -= outputs["z"].mean(1, keepdim=True)
    return Sound().loss(outputs, targets)


def kept(outputs: Tensors, state: Tensors) -> Tensors:
    state["seen"] = torch.ones(3)
    return {}


def grown(outputs: Tensors, state: Tensors) -> Tensors:
    return {"t": state["queue"].add_(1.0).clone()}


def with_state(state: object) -> Sound:
    return type("Faulty", (Sound,), {"init_state": lambda self, params, images, generator: state})()


QUEUE = {"init_state": lambda self, params, images, generator: {"queue": torch.zeros(5)}}
FAULTS = {
    "a number": (loss_that(lambda o, t: 1.0), "loss returns a float; it must return a tensor of one number"),
    "no scalar": (loss_that(lambda o, t: o["z"].square().mean(-1)), r"loss returns torch.float32 \[2, 8\]; it must be"),
    "whole": (loss_that(lambda o, t: o["z"].argmax()), r"loss returns torch.int64 \[\]; it must be one real number"),
    "not finite": (loss_that(lambda o, t: o["z"].sum() * torch.inf), r"loss is not finite \(.?(inf|nan)\)"),
    "a constant": (loss_that(lambda o, t: torch.ones(())), "loss does not depend on the outputs: it is a constant"),
    "detached": (loss_that(lambda o, t: o["z"].detach().mean()), "loss does not depend on the outputs"),
    "raises": (loss_that(lambda o, t: o["q"].mean()), r"loss raises KeyError: 'q' \(.*test_trial.py, line \d+\)$"),
    "random": (loss_that(lambda o, t: F.dropout(o["z"]).mean()), "loss gives another 'loss' when called again with"),
    "keeps count": (loss_that(counted), "loss gives another 'loss' when called again"),
    "writes outputs": (loss_that(written), r"loss writes into the outputs that it is given \('z'\)"),
    "a tensor": (forward_that(lambda o, n, b: o["z"]), "Faulty: forward returns a Tensor; it must return a dict"),
    "a list in it": (forward_that(lambda o, n, b: {**o, "x": [1]}), "Faulty: forward gives 'x' as a list"),
    "no h": (forward_that(lambda o, n, b: {"z": o["z"], "p": o["p"]}), "forward gives no 'h' "),
    "flat z": (forward_that(lambda o, n, b: {**o, "z": o["z"].flatten(0, 1)}), "forward gives 'z' as torch.float32"),
    "nan": (forward_that(lambda o, n, b: {**o, "h": o["h"] / 0 * 0}), "forward gives 'h' with numbers that are"),
    "dropout": (forward_that(lambda o, n, b: {**o, "h": F.dropout(o["h"])}), "forward gives another 'h' when called"),
    "targets": (targets_that("state", lambda o, s: [1]), "targets returns a list; it must return a dict of tensors"),
    "unsaid": (targets_that("none", lambda o, s: {"t": o["z"]}), "targets gives 't', but source is 'none'; say"),
    "graph": (targets_that("state", lambda o, s: {"t": torch.ones(2, requires_grad=True)}), "'t' with a gradient, but"),
    "listed state": (with_state({"queue": [1, 2]}), "Faulty: init_state gives 'queue' as a list; it must be a tensor"),
    "no state": (with_state(None), "Faulty: init_state returns None; it must return a dict of tensors"),
    "no draws": (
        type("Faulty", (Sound,), {"draw": lambda self, batch, images, generator: None})(),
        "Faulty: draw returns None; it must return a dict of tensors",
    ),
    "not state": (targets_that("state", lambda o, s: {"t": o["z"]}), "targets reads the output 'z', but source is"),
    "state": (targets_that("state", kept), r"targets writes into the state that it is given \('seen'\)"),
    "queue": (targets_that("state", grown, **QUEUE), r"targets writes into the state that it is given \('queue'\)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_is_one_line_that_names_the_method_and_the_function(fault: str) -> None:
    method, line = FAULTS[fault]
    with pytest.raises(UserError, match=f"^method .*{line}") as told:
        tried(method)
    assert str(told.value) == printable(str(told.value.args[0]))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_no_method_of_ours_raises_an_alarm_or_is_changed(name: str, precision: str, device: str) -> None:
    learner = bound(name, precision=precision)
    variables, batch = on(device, learner.init()), views(learner, device)[0]
    tensors = [*(t for group in variables for t in group.values()), batch.views, *batch.draws.values()]
    before, drawn = [tensor.clone() for tensor in tensors], torch.random.get_rng_state()
    try_out(Trial(name, learner, variables, batch))
    assert all(torch.equal(tensor, old) for tensor, old in zip(tensors, before, strict=True))
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert torch.get_default_dtype() == torch.float32


def insists(outputs: Tensors, targets: Tensors) -> Tensor:
    """A loss whose product of matrices works in float32 only, and which has steps, kinks and ties."""
    z = outputs["z"].float()
    rotated = z @ torch.eye(z.shape[-1], dtype=torch.float32)
    near = (rotated[0] @ rotated[1].T).argmax(1)
    return (rotated[0] - rotated[1][near]).abs().mean() + F.relu(1 - z.std(1)).mean() + 0 * z.round().mean()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_kinks_and_steps_raise_no_alarm(precision: str) -> None:
    tried(loss_that(insists), precision=precision)
    with pytest.raises(UserError, match="its gradient by 'z' is not its derivative"):
        tried(loss_that(lambda outputs, targets: (outputs["z"].float() * outputs["z"].float().detach()).mean()))


def test_what_is_wrong_in_the_small_is_found_among_much() -> None:
    """A tenth of a loss is cut off; a factor that is detached, of a norm that hardly moves, too."""
    sound = Sound()
    with pytest.raises(UserError, match="by 'h' is not"):
        tried(loss_that(lambda o, t: sound.loss(o, t) + 0.1 * o["h"].detach().square().mean()))
    with pytest.raises(UserError, match="by 'z' is not"):
        tried(loss_that(lambda o, t: sound.loss(o, t) / o["z"].norm().detach()))


class Anchored(Sound):
    anchored: ClassVar[bool] = True

    def embed(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return {name: tensor.detach() for name, tensor in self.project(net, batch).items()}


def test_a_stop_gradient_in_embed_is_told() -> None:
    with pytest.raises(UserError, match="'mine': embed: the gradient of 'h' is not its derivative"):
        tried(Anchored())


def test_a_sound_method_passes_on_few_and_on_many_images() -> None:
    assert task(bound("simclr"))[0].views.shape[1] == 8
    tried(Sound())
