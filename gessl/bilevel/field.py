"""The gradient field of one task: where a point in parameter space lies on the base loss, and its derivatives.

Targets are *held*: they are computed once per point from its own outputs, then stay fixed while differentiating and
replaying. The field's Jacobian is therefore a symmetric Hessian. BatchNorm runs in train mode; what it writes goes to a
throw-away copy of the buffers.
"""

import torch
from torch import Tensor

from gessl.bilevel.learner import Learner
from gessl.methods.base import Tensors


class Point:
    """The base loss at one θ, its graph, and its derivatives.

    Attributes:
        theta: leaf parameters.
        outputs: the method's outputs, each `[V, N, ·]`, with graph to `theta`.
        targets: the held targets.
        buffers: BatchNorm's statistics as this forward pass leaves them.
        loss: scalar base loss, with graph to `theta`.
    """

    def __init__(self, field: "Field", theta: Tensors, step: int, targets: Tensors | None = None) -> None:
        self._field, self._step = field, step
        self.theta = {name: tensor.detach().requires_grad_() for name, tensor in theta.items()}
        learner, views = field.learner, field.views_at(step)
        self.outputs, self.buffers = learner.encode(self.theta, field.buffers, views)
        self.targets = field.targets_at(step, self.outputs) if targets is None else targets
        self.loss = learner.loss(self.outputs, self.targets)
        self.gradient: Tensors | None = None

    def differentiate(self, *, create_graph: bool = False, retain_graph: bool = False) -> Tensors:
        """∇ℓ(θ); with `create_graph` it stays differentiable, which `hvp` then uses."""
        found = grad(self.loss, self.theta, create_graph=create_graph, retain_graph=retain_graph)
        self.gradient = found if create_graph else None
        return {name: tensor.detach() for name, tensor in found.items()}

    def hvp(self, vector: Tensors) -> Tensors:
        """∇²ℓ(θ) · vector, by reverse over reverse: through the stored graph if there is one, else by recomputation."""
        if self.gradient is None:
            again = Point(self._field, self.theta, self._step, self.targets)
            again.differentiate(create_graph=True)
            return again.hvp(vector)
        names = [name for name, tensor in self.gradient.items() if tensor.requires_grad]
        pulled = torch.autograd.grad(
            [self.gradient[name] for name in names],
            list(self.theta.values()),
            [vector[name] for name in names],
            materialize_grads=True,
        )
        self.gradient = None  # its graph is spent
        return dict(zip(self.theta, pulled, strict=True))


class Field:
    """One task: its views, the buffers and the method state it was forked from.

    Args:
        learner: the bound base method.
        buffers: BatchNorm's statistics before the step; read only.
        state: method state (teacher, …), constant within the task.
        views: `[S, V, N, C, H, W]`; S = 1 means the same views at every step.
    """

    def __init__(self, learner: Learner, buffers: Tensors, state: Tensors, views: Tensor) -> None:
        self.learner, self.buffers, self.state, self._views = learner, buffers, state, views
        self._teacher: dict[int, Tensors] = {}

    def views_at(self, step: int) -> Tensor:
        """The views `[V, N, C, H, W]` of inner step `step`."""
        return self._views[self._set_of(step)]

    def targets_at(self, step: int, outputs: Tensors) -> Tensors:
        """The held targets for `outputs`; a teacher, which stands still within the task, is asked once a view set."""
        views = self._set_of(step)
        if views in self._teacher:
            return self._teacher[views]
        found = self.learner.targets(outputs, self.buffers, self.state, self._views[views])
        held = {name: tensor.detach() for name, tensor in found.items()}
        if self.learner.method.source == "state":
            self._teacher[views] = held
        return held

    def _set_of(self, step: int) -> int:
        return step if len(self._views) > 1 else 0

    def at(self, theta: Tensors, step: int) -> Point:
        """One forward pass at θ on the views of `step`."""
        return Point(self, theta, step)

    def embed(self, theta: Tensors, step: int) -> Tensor:
        """Projections `[V, N, D]` at θ on the views of `step`, as a constant."""
        with torch.no_grad():
            return self.learner.encode(theta, self.buffers, self.views_at(step))[0]["z"]


def grad(scalar: Tensor, theta: Tensors, *, create_graph: bool = False, retain_graph: bool = False) -> Tensors:
    """∂scalar/∂θ by name; zero where θ is not reached."""
    if not scalar.requires_grad:
        return {name: torch.zeros_like(tensor) for name, tensor in theta.items()}
    found = torch.autograd.grad(
        scalar,
        list(theta.values()),
        create_graph=create_graph,
        retain_graph=retain_graph or create_graph,
        materialize_grads=True,
    )
    return dict(zip(theta, found, strict=True))


def add(x: Tensors, y: Tensors, scale: float = 1.0) -> Tensors:
    """x + scale · y, as constants."""
    with torch.no_grad():
        summed = torch._foreach_add(list(x.values()), [y[name] for name in x], alpha=scale)
    return dict(zip(x, summed, strict=True))
