"""What decides a run's results: its science. What only decides how fast it gets there: `gessl.cluster.machine`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from gessl.bilevel.settings import ByCurvature, GesslSettings
from gessl.data.sampler import SamplerSettings, Shuffled
from gessl.data.views import ViewPolicy
from gessl.methods import method_class
from gessl.methods.base import Method
from gessl.methods.learner import Precision
from gessl.nets.backbones import BACKBONES
from gessl.optimizer import Adam, OptimizerSettings
from gessl.settings import Misfit, Range, Rate, Settings, Steps, Tagged
from gessl.typed import TypedError, typed

LeastRate = Annotated[float, Range(ge=0, le=1000)]


@dataclass(frozen=True)
class Cosine(Settings):
    """Half a cosine from the peak to `min_lr`."""

    name: Literal["cosine"] = "cosine"
    min_lr: LeastRate = 0.0


@dataclass(frozen=True)
class Constant(Settings):
    """The peak to the end."""

    name: Literal["constant"] = "constant"


@dataclass(frozen=True)
class Drops(Settings):
    """The peak, multiplied by 0.2 at each drop.

    Attributes:
        before_end: how many steps before the end each drop comes.
    """

    name: Literal["drops"] = "drops"
    before_end: tuple[Steps, ...] = ()

    def contradictions(self) -> Iterator[Misfit]:
        """Between the drops."""
        if not self.before_end:
            yield Misfit(("before_end",), "no drop is given; give one or more, or take schedule constant")
        if list(self.before_end) != sorted(set(self.before_end), reverse=True):
            text = f"{list(self.before_end)} must fall, each once: steps before the end, the earliest drop first"
            yield Misfit(("before_end",), text)


ScheduleSettings = Annotated[Cosine | Constant | Drops, Tagged()]


@dataclass(frozen=True)
class TrainSettings(Settings):
    """The outer loop.

    Attributes:
        steps: outer steps.
        batch: N, images per mini-batch task.
        optimizer: what steps, and its own settings.
        lr: peak learning rate (β under GeSSL).
        weight_decay: its coefficient.
        clip: largest norm of the whole gradient; 0 for no clipping.
        warmup: steps of linear warm-up.
        warmup_from: learning rate that the warm-up starts from.
        schedule: of the learning rate after the warm-up.
        precision: of the network's passes; "bfloat16" under autocast, with parameters, losses and the outer loss's own
            passes in float32.
    """

    steps: Steps = 300
    batch: Annotated[int, Range(ge=2, le=65_536)] = 128
    optimizer: OptimizerSettings = field(default_factory=Adam)
    lr: Rate = 1e-3
    weight_decay: Annotated[float, Range(ge=0, le=1000)] = 1e-6
    clip: Annotated[float, Range(ge=0, le=1e6)] = 0.0
    warmup: Annotated[int, Range(ge=0, le=100_000_000)] = 20
    warmup_from: LeastRate = 0.0
    schedule: ScheduleSettings = Cosine()
    precision: Precision = "float32"

    def contradictions(self) -> Iterator[Misfit]:
        """Between the schedule and its length, and between its rates."""
        if self.warmup > self.steps:
            yield Misfit(
                ("warmup", "steps"), f"the warm-up takes {self.warmup} steps, but there are {self.steps}; give fewer"
            )
        if self.warmup_from and not self.warmup:
            text = f"{self.warmup_from} does nothing without a warm-up; raise warmup, or take it out"
            yield Misfit(("warmup_from", "warmup"), text)
        lowest = {"warmup_from": self.warmup_from}
        if isinstance(self.schedule, Cosine):
            lowest["schedule.min_lr"] = self.schedule.min_lr
        for name, rate in lowest.items():
            if rate > self.lr:
                yield Misfit((name, "lr"), f"{rate} is above lr ({self.lr}), the peak; give at most that")
        if isinstance(self.schedule, Drops) and self.schedule.before_end[0] >= self.steps:
            text = f"{list(self.schedule.before_end)} must lie between 0 and steps ({self.steps}), both excluded"
            yield Misfit(("schedule.before_end", "steps"), text)


@dataclass(frozen=True)
class Start(Settings):
    """Where a branch leaves its trunk: a run that ends early, for others to go on from.

    Attributes:
        run, science: the trunk's id and the hash of its science.
        step: outer steps that it has made.
        drawn: mini-batches that it has drawn for them.
        keeps_optimizer: whether the branch has the same optimiser, whose state goes on; else it starts afresh.
    """

    run: str
    science: str
    step: Steps
    drawn: Steps
    keeps_optimizer: bool


@dataclass(frozen=True)
class Science:
    """Everything that decides the bits of a run; its hash, `policies` left out, is part of the run's id.

    Attributes:
        dataset, data_version: what it learns from.
        backbone: key of `BACKBONES`.
        views: name of the view policy.
        method_name, method: the base method and its hyper-parameters.
        train: the outer loop.
        gessl: the bi-level scheme, or None for the base method alone.
        seed: of every draw.
        policies: what `views` stands for: how each view of an image is drawn.
        start: of a branch, where it leaves its trunk; None for a run that begins at step 0.
        stops_at: of a trunk, the step after which it ends, though its schedules go on to `train.steps`.
        sampler: how its mini-batches are drawn.
    """

    dataset: str
    data_version: str
    backbone: str
    views: str
    method_name: str
    method: Method
    train: TrainSettings
    gessl: GesslSettings | None
    seed: int
    policies: tuple[ViewPolicy, ...]
    start: Start | None = None
    stops_at: Steps | None = None
    sampler: SamplerSettings = field(default_factory=Shuffled)

    @property
    def first_step(self) -> int:
        """The first outer step of its own."""
        return self.start.step if self.start else 0

    @property
    def end(self) -> int:
        """The step at which it ends."""
        return self.stops_at or self.train.steps

    @property
    def tasks_per_step(self) -> int:
        """M; 1 for the base method alone."""
        return self.gessl.tasks if self.gessl else 1

    @property
    def follows_curvature(self) -> bool:
        """Whether its inner rate is by curvature, which is measured on the way."""
        return self.gessl is not None and isinstance(self.gessl.inner_lr, ByCurvature)

    @property
    def batches_per_task(self) -> int:
        """Mini-batches of a task."""
        return self.gessl.batches if self.gessl else 1

    def drawn(self, step: int) -> int:
        """Mini-batches that are drawn before an outer step, its trunk's included."""
        own = (step - self.first_step) * self.tasks_per_step * self.batches_per_task
        return own + (self.start.drawn if self.start else 0)

    def tasks_drawn(self, step: int) -> int:
        """Tasks before an outer step; a branch begins after as many as what its trunk has drawn would have made."""
        return -(-self.drawn(step) // self.batches_per_task)

    @classmethod
    def of_plain(cls, values: Any) -> Self:
        """The science in JSON values, such as those in a run's `config.json`.

        Raises:
            TypedError: they are none.
            UserError: there is no such base method.
        """
        name = values.get("method_name") if isinstance(values, dict) else None
        if not isinstance(name, str):
            raise TypedError("method_name: missing")
        science = typed(cls, values, method=typed(method_class(name), values.get("method")))
        if science.backbone not in BACKBONES:
            raise TypedError(f"backbone: {science.backbone[:100]} is none")
        return science
