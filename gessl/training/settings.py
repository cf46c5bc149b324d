"""What decides a run's results (science), and what only decides how fast it gets there (efficiency)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from gessl.bilevel.learner import Precision
from gessl.bilevel.settings import GesslSettings
from gessl.data.views import ViewPolicy
from gessl.methods.base import Method
from gessl.optimizer import Kind
from gessl.settings import Count, Misfit, Range, Rate, Settings, Steps

Decay = Annotated[float, Range(ge=0, lt=1)]
LeastRate = Annotated[float, Range(ge=0, le=1000)]


@dataclass(frozen=True)
class TrainSettings(Settings):
    """The outer loop.

    Attributes:
        steps: outer steps.
        batch: N, images per mini-batch task.
        optimizer: "adam" (weight decay as L2 term, as the W-MSE protocol has it), "adamw" (decay apart from it),
            "sgd" (L2) or "lars" (L2; no adaptation and no decay of biases and normalisations).
        lr: peak learning rate (β under GeSSL).
        momentum: of SGD and LARS.
        beta2: of Adam and AdamW.
        eta: LARS's trust coefficient.
        clip_lr: LARS never moves a tensor at more than `lr`.
        weight_decay: its coefficient.
        clip: largest norm of the whole gradient; 0 for no clipping.
        warmup: steps of linear warm-up.
        warmup_from: learning rate that the warm-up starts from.
        schedule: after the warm-up: "cosine" to `min_lr`, "constant", or "drops".
        min_lr: where the cosine ends.
        drops: so many steps before the end the rate is multiplied by 0.2 (schedule "drops").
        precision: of the network's passes; "bfloat16" under autocast, with parameters, losses and the outer loss's own
            passes in float32.
    """

    steps: Steps = 300
    batch: Annotated[int, Range(ge=2, le=65_536)] = 128
    optimizer: Kind = "adam"
    lr: Rate = 1e-3
    momentum: Decay = 0.9
    beta2: Decay = 0.999
    eta: Rate = 0.02
    clip_lr: bool = True
    weight_decay: Annotated[float, Range(ge=0, le=1000)] = 1e-6
    clip: Annotated[float, Range(ge=0, le=1e6)] = 0.0
    warmup: Annotated[int, Range(ge=0, le=100_000_000)] = 20
    warmup_from: LeastRate = 0.0
    schedule: Literal["cosine", "constant", "drops"] = "cosine"
    min_lr: LeastRate = 0.0
    drops: tuple[Steps, ...] = ()
    precision: Precision = "float32"

    def contradictions(self) -> Iterator[Misfit]:
        """Between the schedule and its length, and between its rates."""
        if self.warmup > self.steps:
            yield Misfit(
                ("warmup", "steps"), f"the warm-up takes {self.warmup} steps, but there are {self.steps}; give fewer"
            )
        for name in ("min_lr", "warmup_from"):
            if getattr(self, name) > self.lr:
                yield Misfit(
                    (name, "lr"), f"{getattr(self, name)} is above lr ({self.lr}), the peak; give at most that"
                )
        if (self.schedule == "drops") != bool(self.drops):
            text = f"{list(self.drops)} does not go with schedule {self.schedule}; give both or neither"
            yield Misfit(("drops", "schedule"), text)
        if list(self.drops) != sorted(set(self.drops), reverse=True):
            text = f"{list(self.drops)} must fall, each once: steps before the end, the earliest drop first"
            yield Misfit(("drops",), text)
        if not all(before < self.steps for before in self.drops):
            text = f"{list(self.drops)} must lie between 0 and steps ({self.steps}), both excluded"
            yield Misfit(("drops", "steps"), text)


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


@dataclass(frozen=True)
class Efficiency(Settings):
    """Where and how fast; no part of a run's identity.

    Attributes:
        device: "auto" takes a CUDA device if there is one.
        compile: let torch.compile fuse the passes: minutes of start for faster steps, so for long runs; changes last
            bits.
        threads: CPU threads of a training or evaluation job (another number gives other last bits, so it is recorded).
        checkpoint_every: steps between checkpoints.
        log_every: steps between writes of the metrics (every step is logged).
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False
    threads: Annotated[int, Range(ge=1, le=1024)] = 1
    checkpoint_every: Steps = 50
    log_every: Count = 10
