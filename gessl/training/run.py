"""One pretraining run in memory: what an outer step is, and the state between two of them."""

import copy

import numpy as np
import torch

from gessl.bilevel.field import halves
from gessl.bilevel.inner import initial_rates, split_rates
from gessl.bilevel.vectors import norm
from gessl.data.arrays import read_card, train_positions
from gessl.data.order import Order
from gessl.data.stores import open_store
from gessl.data.views import Part
from gessl.methods._guided import Guided
from gessl.methods.base import Batch, Clock
from gessl.methods.learner import Learner, Variables, channels_last, seeded_init
from gessl.nets.encoder import Encoder
from gessl.nets.parallel import processes, share
from gessl.optimizer import Optimizer
from gessl.rng import generator
from gessl.training.checkpoint import Checkpoint
from gessl.training.metrics import Metrics
from gessl.training.schedule import learning_rate
from gessl.training.settings import Science
from gessl.training.step import outer_gradient
from gessl.training.trial import Trial, try_out


class Run:
    """One pretraining run in memory: data, learner, variables, optimiser, and the step it has reached.

    It stands where `checkpoint` stood, or at the start without one.
    """

    def __init__(
        self, science: Science, device: torch.device, checkpoint: Checkpoint | None = None, *, compiled: bool = False
    ) -> None:
        self.science, self.device = science, device
        card = read_card(science.dataset)
        self.store = open_store(science.dataset)
        self._order = Order(train_positions(science.dataset), science.seed, science.train.batch)
        self._epoch = max(1, self._order.batches // self.tasks_per_step)
        with seeded_init(generator(science.seed, "encoder")):
            lab = science.method.needs == "lab"
            self.encoder = Encoder(science.backbone, card["mean"], card["std"], card["size"], lab)
        guide = science.gessl.support_query if science.gessl else None
        self.learner = Learner(
            Guided(science.method, guide.weight, guide.temperature) if guide else science.method,
            self.encoder,
            generator(science.seed, "heads"),
            images=len(self._order.train),
            precision=science.train.precision,
            compiled=compiled,
        )
        variables = channels_last(checkpoint.variables) if checkpoint else self._fresh()
        self.variables = Variables(
            *({name: tensor.to(device) for name, tensor in group.items()} for group in variables)
        )
        train = science.train
        self.optimizer = Optimizer(
            self.variables.params, train.optimizer, weight_decay=train.weight_decay, clip=train.clip
        )
        self.step = 0
        if checkpoint:
            self.optimizer.restore(checkpoint.optimizer)
            self.step = checkpoint.step

    def _fresh(self) -> Variables:
        variables, gessl = self.learner.init(), self.science.gessl
        if gessl and gessl.learn_inner_lr:
            variables.params.update(initial_rates(variables.params, gessl))
        return variables

    @property
    def tasks_per_step(self) -> int:
        """M; 1 for the base method alone."""
        return self.science.gessl.tasks if self.science.gessl else 1

    def task(self, step: int, task: int, *, whole: bool = False) -> list[Batch]:
        """The sets of views of one task of one outer step: a function of the seed and these two alone.

        Where processes share the mini-batch, each makes the views of its own images, and all of them only if `whole`.
        """
        science = self.science
        positions = self._order.positions(step * self.tasks_per_step + task)
        index = torch.from_numpy(np.searchsorted(self._order.train, positions)).to(self.device, non_blocking=True)
        sets = range(science.gessl.view_sets if science.gessl else 1)
        views, draws = (
            [generator(science.seed, purpose, step, task, s) for s in sets] for purpose in ("views", "draws")
        )
        made = self.store.views(positions, science.policies, views, self.device, None if whole else self._part())
        return [self.learner.draw(Batch(*each, index=index), drawn) for each, drawn in zip(made, draws, strict=True)]

    def _part(self) -> Part | None:
        """The images of a mini-batch that this process passes through the network; None for all of them."""
        if processes() == 1:
            return None
        count, gessl = self.science.train.batch, self.science.gessl
        together = halves(count) if gessl and gessl.support_query else (slice(0, count),)
        rows = [torch.arange(count)[images] for images in together]
        return Part(torch.cat([images[share(len(images))] for images in rows]), count)

    def try_out(self) -> None:
        """Try the method's functions on the first mini-batch; changes nothing. All processes of a run must call it.

        Raises:
            UserError: one of them is not what the engine takes it for.
            RuntimeError: memory ran out.
        """
        weights = self.variables._replace(params=split_rates(self.variables.params)[0])
        try_out(Trial(self.science.method_name, self.learner, weights, self.task(0, 0, whole=True)[0]))

    def advance(self, metrics: Metrics | None) -> None:
        """One outer step, told to `metrics` if this process keeps any."""
        science, step = self.science, self.step
        tasks = [self.task(step, task) for task in range(self.tasks_per_step)]
        outer = outer_gradient(self.learner, self.variables, tasks, science.gessl)
        lr = learning_rate(step, science.train)
        self.optimizer.step(outer.gradient, lr)
        self.step += 1
        clock = Clock(self.step, science.train.steps, self._epoch)
        state = self.learner.commit(self.variables.state, self.variables.params, outer.seen, clock)
        self.variables = self.variables._replace(buffers=outer.buffers, state=state)
        if metrics is None:
            return
        images = self.step * self.tasks_per_step * science.train.batch
        logs = {**outer.logs, "grad_norm": norm(outer.gradient)}
        features = outer.seen[0].outputs["h"].flatten(0, 1)
        metrics.add({"step": step, "images": images, "lr": lr}, logs, features, (outer.losses, outer.norms))

    def trained(self) -> Encoder:
        """A copy of the encoder as it is now, on the CPU, in eval mode; the run can go on."""
        prefix, encoder = "encoder.", copy.deepcopy(self.encoder)
        tensors = {**self.variables.params, **self.variables.buffers}
        encoder.load_state_dict(
            {name.removeprefix(prefix): tensor.cpu() for name, tensor in tensors.items() if name.startswith(prefix)}
        )
        return encoder.eval()

    def checkpoint(self) -> Checkpoint:
        """All state, as it is now."""
        return Checkpoint(self.step, self.variables, self.optimizer.slots())
