"""What decides a run's results (science), and what only decides how fast it gets there (efficiency)."""

from dataclasses import dataclass
from typing import Literal

from gessl.bilevel.learner import Precision
from gessl.bilevel.settings import GesslSettings
from gessl.methods.base import Method
from gessl.optimizer import Kind


@dataclass(frozen=True)
class TrainSettings:
    """The outer loop.

    Attributes:
        steps: outer steps.
        batch: N, images per mini-batch task.
        optimizer: "adam" (weight decay as L2 term, as the W-MSE protocol has it), "adamw" (decay beside the gradient),
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
        schedule: behind the warm-up: "cosine" to `min_lr`, "constant", or "drops".
        min_lr: where the cosine ends.
        drops: so many steps before the end the rate is multiplied by 0.2 (schedule "drops").
        precision: of the network's passes; "bfloat16" under autocast, with parameters, losses and the outer loss's own
            passes in float32.
    """

    steps: int = 300
    batch: int = 128
    optimizer: Kind = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    beta2: float = 0.999
    eta: float = 0.02
    clip_lr: bool = True
    weight_decay: float = 1e-6
    clip: float = 0.0
    warmup: int = 20
    warmup_from: float = 0.0
    schedule: Literal["cosine", "constant", "drops"] = "cosine"
    min_lr: float = 0.0
    drops: tuple[int, ...] = ()
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        for name in ("weight_decay", "lr", "eta", "clip", "warmup", "warmup_from", "min_lr"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} is too small; give 0 or more")
        for name, least in (("steps", 1), ("batch", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} is too small; give {least} or more")
        for name, usual in (("momentum", 0.9), ("beta2", 0.999)):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is outside [0, 1); the usual value is {usual}")
        if (self.schedule == "drops") != bool(self.drops):
            raise ValueError(
                f"drops: {list(self.drops)} does not go with schedule {self.schedule}; give both or neither"
            )
        if not all(0 < before < self.steps for before in self.drops):
            raise ValueError(f"drops: {list(self.drops)} must lie between 0 and steps ({self.steps}), both excluded")


@dataclass(frozen=True)
class Science:
    """Everything that decides the bits of a run; its hash is part of the run's id.

    Attributes:
        dataset, data_version: what it learns from.
        backbone: key of `BACKBONES`.
        views: key of the view policies.
        method_name, method: the base method and its hyper-parameters.
        train: the outer loop.
        gessl: the bi-level scheme, or None for the base method alone.
        seed: of every draw.
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


@dataclass(frozen=True)
class Efficiency:
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
    threads: int = 1
    checkpoint_every: int = 50
    log_every: int = 10

    def __post_init__(self) -> None:
        for name in ("threads", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is too small; give 1 or more")
