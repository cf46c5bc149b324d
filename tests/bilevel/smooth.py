"""A small smooth learner in float64, and the outer loss written without the engine."""

import dataclasses

import torch
from torch import Tensor, nn

from gessl.bilevel.learner import Learner, Variables
from gessl.bilevel.outer import GesslSettings
from gessl.methods import method_class, method_names
from gessl.methods.base import Method, Tensors
from gessl.rng import generator

N = 8


def narrow(name: str) -> Method:
    """Any base method with its widths cut to a few units: 7, 6, …"""
    cls = method_class(name)
    wide = [field.name for field in dataclasses.fields(cls) if isinstance(field.default, int) and field.default > 8]
    return cls(**{field: 7 - index for index, field in enumerate(wide)})


METHODS: dict[str, Method] = {name: narrow(name) for name in method_names()}


class TanhEncoder(nn.Module):
    """Smooth, so that finite differences converge: on ReLU networks they do not."""

    features = 6

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 6, 3, padding=1), nn.Tanh()
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images).mean((2, 3))


def learner(method: str | Method) -> tuple[Learner, Variables]:
    """A method (by name, or itself) bound to the smooth encoder, ReLU replaced by tanh, everything in float64."""
    torch.manual_seed(0)
    bound = Learner(narrow(method) if isinstance(method, str) else method, TanhEncoder(), generator(0, "heads"))
    for module in bound._net.modules():
        for child_name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, child_name, nn.Tanh())
    variables = bound.init()
    groups = [{key: t.double() if t.is_floating_point() else t for key, t in group.items()} for group in variables]
    params, buffers, state = groups
    # a teacher that differs from the online network, as in the midst of training
    state = {
        key: t + 0.05 * torch.randn(t.shape, generator=generator(0, key), dtype=t.dtype) for key, t in state.items()
    }
    return bound, Variables(params, buffers, state)


def task(name: str, sets: int = 1) -> Tensor:
    """Views `[S, 2, N, 1, 4, 4]`: two noisy copies of the same images."""
    rng = generator(0, "task", name)
    images = torch.randn(1, 1, N, 1, 4, 4, generator=rng, dtype=torch.float64)
    return images + 0.3 * torch.randn(sets, 2, N, 1, 4, 4, generator=rng, dtype=torch.float64)


def log_pi(z: Tensor, temperature: float) -> Tensor:
    """log π for both directions, `[2, N, N]`: cosine of each sample with the other view's anchors, softmax."""
    unit = z / z.norm(dim=-1, keepdim=True)
    cosines = unit[0] @ unit[1].T
    return torch.stack([cosines, cosines.T]).div(temperature).log_softmax(-1)


class OuterLoss:
    """J(θ), all targets held at their values at the given θ: plain autograd, no engine."""

    def __init__(self, bound: Learner, variables: Variables, views: Tensor, settings: GesslSettings) -> None:
        self.bound, self.variables, self.views, self.settings = bound, variables, views, settings
        self.held: list[Tensors] = []
        theta = variables.params
        for k in range(settings.inner_steps):
            self.held.append(self._targets(theta, k))
            theta = self._descend(theta, k, self.held[k])
        self.held.append(self._targets(theta, settings.inner_steps))
        for k in range(settings.inner_steps, settings.inner_steps + settings.target_steps):
            theta = self._descend(theta, k, self._targets(theta, k))
        self.log_target = log_pi(self._outputs(theta, settings.inner_steps)["z"], settings.temperature).detach()

    def __call__(self, theta: Tensors) -> Tensor:
        settings, start = self.settings, theta
        for k in range(settings.inner_steps):
            theta = self._descend(theta, k, self.held[k])
        log_p = log_pi(self._outputs(theta, settings.inner_steps)["z"], settings.temperature)
        p, q = log_p.exp(), self.log_target.exp()
        kl = {
            "kl": (p * (log_p - self.log_target)).sum(-1),
            "reverse_kl": (q * (self.log_target - log_p)).sum(-1),
        }[settings.divergence].mean()
        place, step = (start, 0) if settings.ssl_at == "initial" else (theta, settings.inner_steps)
        ssl = self.bound.loss(self._outputs(place, step), self.held[step])
        return settings.kl_weight * kl + settings.ssl_weight * ssl

    def slope(self, theta: Tensors, direction: Tensors, h: float = 3e-7) -> float:
        """Directional derivative by central differences of fourth order."""

        def at(scale: float) -> float:
            return float(self({name: t + scale * h * direction[name] for name, t in theta.items()}))

        return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)

    def _views(self, step: int) -> Tensor:
        return self.views[step if len(self.views) > 1 else 0]

    def _outputs(self, theta: Tensors, step: int) -> Tensors:
        return self.bound.encode(theta, self.variables.buffers, self._views(step))[0]

    def _targets(self, theta: Tensors, step: int) -> Tensors:
        outputs = self._outputs(theta, step)
        found = self.bound.targets(outputs, self.variables.buffers, self.variables.state, self._views(step))
        return {name: tensor.detach() for name, tensor in found.items()}

    def _descend(self, theta: Tensors, step: int, targets: Tensors) -> Tensors:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in theta.items()}
        self.bound.loss(self._outputs(leaves, step), targets).backward()
        lr = self.settings.inner_lr
        return {n: (t - lr * t.grad if t.grad is not None else t).detach() for n, t in leaves.items()}
