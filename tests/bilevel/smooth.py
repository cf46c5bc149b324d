"""A small smooth learner in float64, its tasks, and the outer loss written without the engine."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gessl.bilevel.learner import Learner, Variables
from gessl.bilevel.settings import GesslSettings
from gessl.methods import method_class, method_names
from gessl.methods.base import TEACHER, Batch, Clock, Method, Seen, Tensors
from gessl.nets.vit import ViT
from gessl.rng import generator

N, SIZE, IMAGES = 8, 8, 24


def narrow(name: str) -> Method:
    """Any base method with its widths cut to a few units: 7, 6, …"""
    cls = method_class(name)
    wide = [field.name for field in dataclasses.fields(cls) if isinstance(field.default, int) and field.default > 8]
    return cls(**{field: 7 - index for index, field in enumerate(wide)})


METHODS: dict[str, Method] = {name: narrow(name) for name in method_names()}
# no targets (joint batch, and view by view), a teacher's, the outputs' own: what concerns the engine is tried on these
KINDS = ("simclr", "barlow_twins", "byol", "simsiam")


class TanhEncoder(nn.Module):
    """Smooth, so that finite differences converge: on ReLU networks they do not."""

    features = 6

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 6, 3, padding=1), nn.Tanh()
        )

    def maps(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(self.body(images), 2)

    def forward(self, images: Tensor) -> Tensor:
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
        lightness = self.lightness(images.mean(1, keepdim=True))
        return lightness.mean((2, 3)), self.colour(images.diff(dim=1)).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(self.halves(images), 1)


# by what a method needs of its encoder
ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "features": TanhEncoder,
    "maps": TanhEncoder,
    "tokens": lambda: ViT(3, SIZE, 2, width=8, depth=4, heads=2),  # GELU is smooth
    "lab": TanhHalves,
}


def learner(method: str | Method) -> tuple[Learner, Variables]:
    """A method (by name, or itself) bound to a smooth encoder, ReLU replaced by tanh, everything in float64."""
    torch.manual_seed(0)
    method = narrow(method) if isinstance(method, str) else method
    bound = Learner(method, ENCODERS[method.needs](), generator(0, "heads"), images=IMAGES)
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
    """The same behind what holds prototypes still and keeps a queue closed in the first epochs."""
    opened = dict(state)
    if "frozen" in state:
        opened["frozen"] = torch.zeros_like(state["frozen"])
    if "queued" in state:
        opened["queued"] = torch.full_like(state["queued"], state["queue"].shape[1])
        rows = torch.randn(state["queue"].shape, generator=generator(0, "rows"), dtype=state["queue"].dtype)
        opened["queue"] = nn.functional.normalize(rows, dim=-1)
    return opened


def _past_an_epoch(bound: Learner, variables: Variables) -> Variables:
    """The same behind an epoch's end, for a method that learns nothing before."""
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

    @property
    def _compared(self) -> int:
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
