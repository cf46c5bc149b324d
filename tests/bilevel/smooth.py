"""A small smooth learner in float64, its tasks, and the outer loss written without the engine."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gessl.bilevel.settings import GesslSettings
from gessl.methods import method_class, method_names
from gessl.methods.base import Batch, Method, Tensors
from gessl.methods.learner import Learner, Variables
from gessl.rng import generator
from gessl.training import smooth
from gessl.training.smooth import ENCODERS, IMAGES, SIZE, N, TanhEncoder, task

__all__ = ["ENCODERS", "IMAGES", "SIZE", "N", "TanhEncoder", "task"]


def narrow(name: str) -> Method:
    """Any base method with its widths cut to a few units: 7, 6, …"""
    return smooth.narrow(method_class(name)())


METHODS: dict[str, Method] = {name: narrow(name) for name in method_names()}
# no targets (joint batch, and view by view), a teacher's, the outputs' own: what concerns the engine is tried on these
KINDS = ("simclr", "barlow_twins", "byol", "simsiam")


def learner(method: str | Method) -> tuple[Learner, Variables]:
    """A method (by name, or itself) bound to a smooth encoder, everything in float64."""
    return smooth.learner(narrow(method) if isinstance(method, str) else method)


def log_pi(z: Tensor, settings: GesslSettings) -> Tensor:
    """log π, `[1 or 2, N, N]`: cosine of each sample with the other view's anchors, softmax."""
    unit = z / z.norm(dim=-1, keepdim=True)
    cosines = unit[0] @ unit[1].T
    both = torch.stack([cosines, cosines.T]) if settings.symmetric else cosines[None]
    return both.div(settings.temperature).log_softmax(-1)


def distance(z: Tensor, z_target: Tensor, settings: GesslSettings) -> Tensor:
    """The outer loss's divergence from its formula."""
    if settings.divergence == "cosine":
        return (1 - torch.cosine_similarity(z, z_target, dim=-1)).mean()
    p, q = log_pi(z, settings).exp(), log_pi(z_target, settings).exp()
    mixed = (p + q) / 2
    return {
        "kl": (p * (p / q).log()).sum(-1),
        "reverse_kl": (q * (q / p).log()).sum(-1),
        "js": (p * (p / mixed).log() + q * (q / mixed).log()).sum(-1) / 2,
        "l2": ((p - q) ** 2).sum(-1),
    }[settings.divergence].mean()


def task_for(bound: Learner, settings: GesslSettings, number: int = 0) -> list[Batch]:
    """A task as `settings` take it: the sets of views of a mini-batch, and one of another where that is judged on."""
    own = task(bound, settings.view_sets, number)
    return [*own, *task(bound, 1, 1000 + number)] if settings.judged_on == "other" else own


class OuterLoss:
    """J(θ) and its parts from their formulas, in plain autograd, without the engine.

    What the base method puts under a stop-gradient keeps its value at the given θ; with `total` only the outer loss's
    own does, and the path's moves along.
    """

    def __init__(self, bound: Learner, variables: Variables, views: Sequence[Batch], settings: GesslSettings) -> None:
        self.bound, self.variables, self.views, self.settings = bound, variables, views, settings
        self.held: list[Tensors] = []
        theta, velocity = self._walk(variables.params)
        inner = settings.inner_steps
        self.at_start = self._targets(weights(variables.params), settings.view_set(0) if inner else self._compared)
        self.at_end = self._targets(theta, self._compared)
        for step in range(inner, inner + settings.target_steps):
            last = step == inner + settings.target_steps - 1
            seen = settings.view_set(step)
            if last and settings.target_last == "classification":
                gradient = self._gradient(theta, lambda at, seen=seen: self._classification(at, seen))
            else:
                gradient = self._ssl_gradient(theta, seen, self._targets(theta, seen))
            theta, velocity = self._step(theta, velocity, gradient, variables.params)
        self.target = theta
        self.z_target = self._embedding(theta).detach()

    def __call__(self, params: Tensors) -> Tensor:
        settings, (end, _) = self.settings, self._walk(params)
        kl = distance(self._embedding(end), self.z_target, settings)
        if settings.ssl_at == "initial":
            seen = settings.view_set(0) if settings.inner_steps else self._compared
            ssl = self.bound.loss(self._outputs(weights(params), seen), self.at_start)
        else:
            ssl = self.bound.loss(self._outputs(end, self._compared), self.at_end)
        per_path = settings.kl_scale == "per_path"
        scale = 1 / (settings.inner_lr * settings.target_steps) if per_path else 1.0
        return settings.kl_weight * scale * kl + settings.ssl_weight * ssl

    def slope(self, params: Tensors, direction: Tensors, h: float = 3e-7) -> float:
        """Directional derivative by central differences of fourth order."""

        def at(scale: float) -> float:
            return float(self({name: t + scale * h * direction[name] for name, t in params.items()}))

        return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)

    def base(self, theta: Tensors, seen: int) -> Tensor:
        """The base loss at `theta` on set `seen`, whose targets are its own."""
        return self.bound.loss(self._outputs(theta, seen), self._targets(theta, seen))

    def at_target(self) -> float:
        """ℓ(θ*)."""
        return float(self.base(self.target, self._compared))

    @property
    def _compared(self) -> int:
        if self.settings.judged_on == "other":
            return len(self.views) - 1
        return self.settings.inner_steps if self.settings.views == "fresh" else 0

    def _walk(self, params: Tensors) -> tuple[Tensors, Tensors]:
        theta, velocity = weights(params), {}
        recording = len(self.held) < self.settings.inner_steps
        for k in range(self.settings.inner_steps):
            seen = self.settings.view_set(k)
            moving = self.settings.stop_gradient == "total"
            targets = self._targets(theta, seen) if recording or moving else self.held[k]
            if recording:
                self.held.append(targets)
            theta, velocity = self._step(theta, velocity, self._ssl_gradient(theta, seen, targets), params)
        return theta, velocity

    def _step(self, theta: Tensors, velocity: Tensors, gradient: Tensors, params: Tensors) -> tuple[Tensors, Tensors]:
        settings, moved, speed = self.settings, dict(theta), {}
        for name, tensor in theta.items():
            part = "encoder" if name.startswith("encoder.") else "heads"
            if settings.adapt in ("all", part):
                pull = gradient[name] + settings.proximal * (tensor - params[name])
                speed[name] = settings.inner_momentum * velocity.get(name, torch.zeros_like(tensor)) + pull
                moved[name] = tensor - params.get("inner_lr." + name, settings.inner_lr) * speed[name]
        return moved, speed

    def _classification(self, theta: Tensors, seen: int) -> Tensor:
        log_p = log_pi(self._outputs(theta, seen)[self._key], self.settings)
        return -sum(row[i, i] for row in log_p for i in range(N)) / (len(log_p) * N)

    @property
    def _key(self) -> str:
        return {"projections": "z", "features": "h"}[self.settings.embedding]

    def _embedding(self, theta: Tensors) -> Tensor:
        return self.bound.embed(theta, self.variables.buffers, self.views[self._compared])[self._key]

    def _outputs(self, theta: Tensors, seen: int) -> Tensors:
        return self.bound.encode(theta, self.variables.buffers, self.views[seen])[0]

    def _targets(self, theta: Tensors, seen: int) -> Tensors:
        outputs = self._outputs(theta, seen)
        found = self.bound.targets(outputs, self.variables.buffers, self.variables.state, self.views[seen])
        return {name: tensor.detach() for name, tensor in found.items()}

    def _ssl_gradient(self, theta: Tensors, seen: int, targets: Tensors) -> Tensors:
        return self._gradient(theta, lambda at: self.bound.loss(self._outputs(at, seen), targets))

    def _gradient(self, theta: Tensors, loss: Callable[[Tensors], Tensor]) -> Tensors:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in theta.items()}
        loss(leaves).backward()
        return {n: torch.zeros_like(t) if t.grad is None else t.grad for n, t in leaves.items()}


def weights(params: Tensors) -> Tensors:
    return {name: tensor for name, tensor in params.items() if not name.startswith("inner_lr.")}


def directions(params: Tensors, count: int = 3) -> list[Tensors]:
    return [
        {name: torch.randn(t.shape, dtype=t.dtype, generator=generator(i, name)) for name, t in params.items()}
        for i in range(count)
    ]


def dot(a: Tensors, b: Tensors) -> float:
    return float(sum((a[name] * b[name]).sum() for name in a))


def norm(a: Tensors) -> float:
    return dot(a, a) ** 0.5


def gap(a: Tensors, b: Tensors) -> float:
    """‖a - b‖ / ‖b‖."""
    return norm({name: a[name] - b[name] for name in b}) / norm(b)
