"""One pretraining run in memory: what an outer step is, and the state between two of them."""

import copy
import itertools
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from gessl.bilevel.field import halves
from gessl.bilevel.inner import initial_rates, split_rates
from gessl.bilevel.vectors import norm
from gessl.cluster.device import StepTime, moment, to_device
from gessl.cluster.machine import can_read_ahead
from gessl.data.arrays import read_card
from gessl.data.domains import order_of
from gessl.data.feed import Feed
from gessl.data.order import Positions
from gessl.data.stores import for_views, open_store
from gessl.data.views import Loaded, Part, whole_size
from gessl.methods._guided import Guided
from gessl.methods.base import Batch, Clock
from gessl.methods.learner import Learner, Variables, channels_last, seeded_init
from gessl.nets.encoder import Encoder
from gessl.nets.parallel import processes, share
from gessl.optimizer import Optimizer
from gessl.rng import generator
from gessl.training.branch import branched
from gessl.training.checkpoint import Checkpoint
from gessl.training.inner_rate import InnerRate
from gessl.training.metrics import Metrics
from gessl.training.schedule import learning_rate
from gessl.training.settings import Science
from gessl.training.step import outer_gradient
from gessl.training.trial import Trial, try_out

STEPS_AHEAD = 2
"""How many steps' pictures are read ahead, so that one slow read is made up for.

A step of M tasks of N images takes M · N · 3 · side² bytes for each view, on the device or in memory before that: 77 MB
for two views of 256 images of 224 pixels.
"""


class Run:
    """One pretraining run in memory: data, learner, variables, optimiser, and the step it has reached.

    It stands where `checkpoint`, its own or its trunk's, stood, or at the start without one.
    """

    def __init__(
        self, science: Science, device: torch.device, checkpoint: Checkpoint | None = None, *, compiled: bool = False
    ) -> None:
        self.science, self.device = science, device
        self._now = partial(moment, device)
        card = read_card(science.dataset)
        self.store = for_views(open_store(science.dataset), science.policies)
        batch, parts = science.train.batch, science.batches_per_task
        self._order = order_of(science.dataset, science.sampler, science.seed, batch, parts)
        self._epoch = max(1, self._order.batches // science.tasks_per_step)
        with seeded_init(generator(science.seed, "encoder")):
            lab = science.method.needs == "lab"
            self.encoder = Encoder(science.backbone, card["mean"], card["std"], self.store.shape[2:], lab)
            self.encoder.cropped = whole_size(science.policies) is not None
        guide = science.gessl.support_query if science.gessl else None
        self.learner = Learner(
            Guided(science.method, guide.weight, guide.temperature) if guide else science.method,
            self.encoder,
            generator(science.seed, "heads"),
            images=len(self._order.train),
            precision=science.train.precision,
            compiled=compiled,
        )
        if checkpoint and science.start and checkpoint.step == science.first_step:
            checkpoint = branched(checkpoint, self._fresh(), science.start.keeps_optimizer)
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
        self._rate = InnerRate(science, self.learner, checkpoint.inner if checkpoint else {})
        self._feed = self._fed()

    def _fed(self) -> Feed:
        """The mini-batches of the steps that are left."""
        science, ahead = self.science, self.store.slow and can_read_ahead(self.device)
        parts, batches = science.batches_per_task, science.batches_per_task * science.tasks_per_step
        return Feed(
            lambda number: self._loading(number // batches, *divmod(number % batches, parts)),
            self.step * batches,
            science.end * batches,
            ahead=STEPS_AHEAD * batches if ahead else 0,
            device=self.device,
            now=self._now,
        )

    def _fresh(self) -> Variables:
        variables, gessl = self.learner.init(), self.science.gessl
        if gessl and gessl.learn_inner_lr:
            variables.params.update(initial_rates(variables.params, gessl))
        return variables

    def task(self, step: int, task: int, *, whole: bool = False) -> list[Batch]:
        """The sets of views of one task of one outer step: a function of the seed and these two alone.

        After them comes the one of the task's other mini-batch, if it has any. Where processes share the mini-batches,
        each makes the views of its own images, and all of them only if `whole`.
        """
        parts = range(self.science.batches_per_task)
        return self._drawn(step, task, [self._loading(step, task, p, whole=whole)().moved(self.device) for p in parts])

    def _loading(self, step: int, task: int, part: int, *, whole: bool = False) -> Callable[[], Loaded]:
        """What reads the pictures of a mini-batch of a task, in any thread."""
        count, positions = self.science.train.batch, self._order.positions(self.science.tasks_drawn(step) + task)
        positions = positions[part * count : (part + 1) * count]
        generators, mine = self._generators("views", step, task, part), None if whole else self._part()
        return lambda: self.store.load(positions, self.science.policies, generators, mine)

    def _drawn(self, step: int, task: int, loaded: Sequence[Loaded]) -> list[Batch]:
        """The sets of views of a task, the pictures of whose mini-batches are on the device."""
        drawn = (self._batches(each, self._generators("draws", step, task, part)) for part, each in enumerate(loaded))
        return list(itertools.chain(*drawn))

    def unseen(self, positions: Positions, number: int) -> list[Batch]:
        """The sets of views of a task of images that are not trained on; `number` keys what is drawn.

        Their `index` means nothing: a method that keeps something of each training image cannot take them.
        """
        found: list[Batch] = []
        for part, images in enumerate(np.array_split(positions, self.science.batches_per_task)):
            generators = self._generators("unseen-views", number, 0, part)
            loaded = self.store.load(images, self.science.policies, generators).moved(self.device)
            found += self._batches(loaded, self._generators("unseen-draws", number, 0, part))
        return found

    def _batches(self, loaded: Loaded, draws: list[torch.Generator]) -> list[Batch]:
        index = to_device(torch.from_numpy(np.searchsorted(self._order.train, loaded.positions)), self.device)
        return [self.learner.draw(Batch(*v, index=index), d) for v, d in zip(loaded.views(), draws, strict=True)]

    def _generators(self, purpose: str, step: int, task: int, part: int) -> list[torch.Generator]:
        """One for each set of views of a task's mini-batch; of its other one there is a single set."""
        if part:
            return [generator(self.science.seed, f"other {purpose}", step, task)]
        sets = range(self.science.gessl.view_sets if self.science.gessl else 1)
        return [generator(self.science.seed, purpose, step, task, s) for s in sets]

    def _part(self) -> Part | None:
        """The images of a mini-batch that this process passes through the network; None for all of them."""
        if processes() == 1:
            return None
        count, gessl = self.science.train.batch, self.science.gessl
        together = halves(count) if gessl and gessl.support_query else (slice(0, count),)
        rows = [torch.arange(count)[images] for images in together]
        return Part(torch.cat([images[share(len(images))] for images in rows]), count)

    def try_out(self) -> None:
        """Try the method's functions on its first mini-batch; changes nothing. All processes of a run must call it.

        Raises:
            UserError: one of them is not what the engine takes it for.
            RuntimeError: memory ran out.
        """
        weights = self.variables._replace(params=split_rates(self.variables.params)[0])
        batch = self.task(self.science.first_step, 0, whole=True)[0]
        try_out(Trial(self.science.method_name, self.learner, weights, batch))

    def advance(self, metrics: Metrics | None) -> None:
        """One outer step, noted in `metrics` if this process keeps any."""
        science, step, began = self.science, self.step, self._now()
        parts = range(science.batches_per_task)
        tasks = [self._drawn(step, t, [self._feed.take() for _ in parts]) for t in range(science.tasks_per_step)]
        scheme = self._rate.settings(step, self.variables, tasks[0])
        outer = outer_gradient(self.learner, self.variables, tasks, scheme)
        lr = learning_rate(step, science.train)
        self.optimizer.step(outer.gradient, lr)
        self.step += 1
        clock = Clock(self.step, science.train.steps, self._epoch)
        state = self.learner.commit(self.variables.state, self.variables.params, outer.seen, clock)
        self.variables = self.variables._replace(buffers=outer.buffers, state=state)
        timed = StepTime(began, self._feed.waits(), self._now())
        if metrics is None:
            return
        images = science.drawn(self.step) * science.train.batch
        logs = {**outer.logs, **self._rate.state, "grad_norm": norm(outer.gradient)}
        features = outer.seen[0].outputs["h"].flatten(0, 1)
        metrics.add({"step": step, "images": images, "lr": lr}, logs, features, (outer.losses, outer.norms), timed)

    def close(self) -> None:
        """End its threads."""
        self.store.close()
        self._feed.close()

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
        return Checkpoint(self.step, self.variables, self.optimizer.slots(), self._rate.state)
