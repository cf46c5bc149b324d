"""The gradient field of one task: where a point in parameter space lies on the base loss, and its derivatives.

Targets are *held*: they are computed once per point from its own outputs, then stay fixed while differentiating and
replaying. The field's Jacobian is therefore a symmetric Hessian. With `total` the targets move with the point, as they
do along the path that is really walked; the Jacobian is then that of θ ↦ ∂_a L(a, T(θ)) at a = θ, which is not
symmetric. BatchNorm runs in train mode; what it writes goes to a throw-away copy of the buffers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gessl.methods.base import Batch, Seen, Tensors
from gessl.methods.learner import ForwardPass, Learner
from gessl.nets.parallel import averaged
from gessl.nets.second_order import plain_layers


class Point:
    """The base loss at one θ, its graph, and its derivatives.

    Attributes:
        theta: leaf parameters.
        outputs: the method's outputs, each `[V, N, ·]`, with graph to `theta`.
        targets: the held targets.
        buffers: BatchNorm's statistics as this forward pass leaves them.
        loss: scalar base loss, with graph to `theta`.
        views: which set of views it sees.
    """

    def __init__(
        self, field: "Field", theta: Tensors, views: int, targets: Tensors | None, *, twice: bool = False
    ) -> None:
        self._field, self.views = field, views
        self.theta = {name: tensor.detach().requires_grad_() for name, tensor in theta.items()}
        # θ in the slot that is differentiated; apart from the targets' slot where those are to move as well
        self._place = self.theta
        if twice and field.total:
            self._place = {name: tensor.clone() for name, tensor in self.theta.items()}
            targets = field.moving_targets(self.theta, views)
        self.loss, self.outputs, self.targets, self.buffers = field.evaluate(self._place, views, targets, twice)
        self._graph: Tensors | None = None

    def differentiate(
        self,
        names: tuple[str, ...] | None = None,
        *,
        of: Tensor | None = None,
        twice: bool = False,
        retain_graph: bool = False,
    ) -> Tensors:
        """∇ℓ(θ), or that of another scalar, by `names` (default: all); `twice` keeps its graph for `hvp`."""
        place = self._place if names is None else {name: self._place[name] for name in names}
        found = grad(self.loss if of is None else of, place, twice=twice, retain_graph=retain_graph)
        self._graph = found if twice else None
        return averaged(found)

    def again(self, *, twice: bool = False) -> "Point":
        """The same point with its targets, computed afresh."""
        return Point(self._field, self.theta, self.views, self.targets, twice=twice)

    def at(self, theta: Tensors) -> "Point":
        """Another θ on the same views with the same held targets."""
        return Point(self._field, theta, self.views, self.targets)

    def on(self, views: int, *, twice: bool = False) -> "Point":
        """The same θ on another set of views, with the targets that it has there."""
        return self._field.at(self.theta, views, twice=twice)

    def hvp(self, vector: Tensors, *, retain_graph: bool = False) -> Tensors:
        """(∂∇ℓ/∂θ)ᵀ vector, `vector` being zero where it has no entry.

        By reverse over reverse through the stored graph if there is one (2 base steps), else from scratch (3).
        """
        if self._graph is None:
            if self._field.learner.compiled and not self._field.total:
                return self._field.compiled_hvp(self.theta, self.views, self.targets, vector)
            again = self.again(twice=True)
            again.differentiate(tuple(vector), twice=True)
            return again.hvp(vector)
        names = [name for name in vector if self._graph[name].requires_grad]
        pulled = torch.autograd.grad(
            [self._graph[name] for name in names],
            list(self.theta.values()),
            [vector[name] for name in names],
            retain_graph=retain_graph,
            materialize_grads=True,
        )
        if not retain_graph:
            self._graph = None
        return averaged(dict(zip(self.theta, pulled, strict=True)))


class Field:
    """One task: its views, the buffers and the method state it was forked from.

    Args:
        learner: the bound base method.
        buffers: BatchNorm's statistics before the step; read only.
        state: method state (teacher, …), constant within the task.
        batches: S sets of views of the same images, and perhaps one of other images, which the outer loss is taken on;
            which step sees which is the settings' choice.
        total: differentiate through targets that come from a point's own outputs (see above).
    """

    def __init__(
        self, learner: Learner, buffers: Tensors, state: Tensors, batches: Sequence[Batch], *, total: bool = False
    ) -> None:
        self.learner, self.buffers, self.state, self._batches = learner, buffers, state, batches
        self.total = total and learner.method.source == "outputs"
        self._teacher: dict[int, Tensors] = {}

    def halves(self) -> tuple["Field", "Field"]:
        """The task's first and second half of images, as tasks of their own."""
        cut = [_halves(batch) for batch in self._batches]
        first, second = (
            Field(self.learner, self.buffers, self.state, batches, total=self.total)
            for batches in zip(*cut, strict=True)
        )
        return first, second

    def batch(self, views: int = 0) -> Batch:
        """The mini-batch as set `views` shows it."""
        return self._batches[views]

    def at(self, theta: Tensors, views: int = 0, *, twice: bool = False) -> Point:
        """One forward pass at θ on set `views`; `twice` if its gradient will be differentiated."""
        return Point(self, theta, views, None, twice=twice)

    def evaluate(self, theta: Tensors, views: int, targets: Tensors | None, twice: bool) -> ForwardPass:
        """The learner's loss at θ; a teacher, which stands still within the task, is asked once a view set."""
        learner = self.learner
        if targets is None and learner.method.source == "state":
            targets = self._taught(views)
        if twice:  # never compiled: what is compiled cannot be differentiated twice
            return Learner.evaluate(learner, theta, self.buffers, self.state, self._batches[views], targets)
        with plain_layers():
            return learner.evaluate(theta, self.buffers, self.state, self._batches[views], targets)

    def seen(self, point: Point) -> Seen:
        """What `point` saw and gave, as constants."""
        outputs = {name: tensor.detach() for name, tensor in point.outputs.items()}
        return Seen(self.batch(point.views), outputs, point.targets)

    def compare(self, theta: Tensors, views: int = 0) -> tuple[Tensors, Tensor]:
        """What π compares at θ on set `views`, in full precision, and the base loss there, as constants."""
        learner, batch = self.learner, self._batches[views]
        with torch.no_grad():
            compared = learner.embed(theta, self.buffers, batch)
            outputs = learner.encode(theta, self.buffers, batch)[0] if learner.method.anchored else compared
            if learner.method.source == "state":
                return compared, learner.loss(outputs, self._taught(views))
            return compared, learner.loss(outputs, learner.targets(outputs, self.buffers, self.state, batch))

    def embed_exactly(self, theta: Tensors, views: int, *, twice: bool = False) -> tuple[Tensors, Tensors]:
        """Leaf parameters and, with graph to them, what π compares, in full precision; see `at` for `twice`."""
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in theta.items()}
        if twice:
            return leaves, Learner.embed(self.learner, leaves, self.buffers, self._batches[views])
        return leaves, self.learner.embed(leaves, self.buffers, self._batches[views])

    def moving_targets(self, theta: Tensors, views: int) -> Tensors:
        """The targets that θ's own outputs give, with graph to θ."""
        outputs = self.learner.encode(theta, self.buffers, self._batches[views])[0]
        return self.learner.targets(outputs, self.buffers, self.state, self._batches[views])

    def compiled_hvp(self, theta: Tensors, views: int, targets: Tensors, vector: Tensors) -> Tensors:
        """The Hessian-vector product as one compiled graph."""
        with torch.no_grad():
            constants = {name: tensor.detach() for name, tensor in theta.items()}
            return self.learner.hvp(constants, self.buffers, self._batches[views], targets, vector)

    def _taught(self, views: int) -> Tensors:
        if views not in self._teacher:
            with torch.no_grad():
                self._teacher[views] = self.learner.targets({}, self.buffers, self.state, self._batches[views])
        return self._teacher[views]


def halves(images: int) -> tuple[slice, slice]:
    """The first and the second half of a number of images; the first is the larger one if it is odd."""
    middle = images - images // 2
    return slice(0, middle), slice(middle, images)


def _halves(batch: Batch) -> tuple[Batch, Batch]:
    assert not batch.draws, "what is drawn for a mini-batch cannot be cut in halves"
    images = batch.views.shape[1]
    index = batch.index if batch.index is not None else torch.arange(images)

    def part(images: slice) -> Batch:
        views, crops, boxes, flips = (None if tensor is None else tensor[:, images] for tensor in batch[:4])
        assert views is not None
        return Batch(views, crops, boxes, flips, index[images])

    first, second = halves(images)
    return part(first), part(second)


def grad(scalar: Tensor, theta: Tensors, *, twice: bool = False, retain_graph: bool = False) -> Tensors:
    """∂scalar/∂θ by name, differentiable again if `twice`; zero where θ is not reached."""
    if not scalar.requires_grad:
        return {name: torch.zeros_like(tensor) for name, tensor in theta.items()}
    found = torch.autograd.grad(
        scalar,
        list(theta.values()),
        create_graph=twice,
        retain_graph=retain_graph or twice,
        materialize_grads=True,
    )
    return dict(zip(theta, found, strict=True))
