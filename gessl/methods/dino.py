"""DINO (Caron et al. 2021, https://arxiv.org/abs/2104.14294)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods._prototypes import multi_crop, swapped, unit_projections, unit_prototypes
from gessl.methods._teacher import Taught, taught
from gessl.methods.base import Batch, Clock, Project, Seen, Tensors
from gessl.settings import Epochs, Momentum, Prototypes, Temperature, Width


@dataclass(frozen=True)
class DINO(Taught):
    """A student's views and crops predict a moving average's centred and sharpened output of the other view.

    Follows https://github.com/facebookresearch/dino/blob/main/main_dino.py: the teacher sees the views only, its centre
    moves after use, its temperature rises over the first epochs. The last layer, "prototypes", is weight-normed with
    norms fixed at 1 and gets no gradient for `frozen_epochs`. The head has no BatchNorm.
    """

    crops: ClassVar[bool] = True

    hidden: Width = 2048
    dim: Width = 256
    prototypes: Prototypes = 65536
    temperature: Temperature = 0.1
    teacher_temperature_start: Temperature = 0.04
    teacher_temperature: Temperature = 0.07
    warmup_epochs: Epochs = 30
    centre_momentum: Momentum = 0.9
    momentum: Momentum = 0.996
    frozen_epochs: Epochs = 1

    def heads(self, features: int) -> dict[str, nn.Module]:
        # https://github.com/facebookresearch/dino/blob/main/vision_transformer.py
        layers = [
            nn.Linear(features, self.hidden),
            nn.Linear(self.hidden, self.hidden),
            nn.Linear(self.hidden, self.dim),
        ]
        for layer in layers:
            # 0.02 as there; layers of fewer than 300 inputs, which that code never has, would let the signal vanish
            nn.init.trunc_normal_(layer.weight, std=max(0.02, 6 / layer.in_features))
            nn.init.zeros_(layer.bias)
        return {
            "projector": nn.Sequential(layers[0], nn.GELU(), layers[1], nn.GELU(), layers[2]),
            "prototypes": nn.Linear(self.dim, self.prototypes, bias=False),
        }

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        return {
            **super().init_state(params, images, generator),
            "centre": torch.zeros(self.prototypes),
            "teacher_temperature": torch.tensor(self._teacher_temperature(0)),
            "prototypes": F.normalize(params["prototypes.weight"], dim=1),
            "frozen": torch.tensor(float(self.frozen_epochs > 0)),
        }

    def project(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return self.forward(net, batch._replace(crops=None))

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return {**multi_crop(net, batch), "prototypes": unit_prototypes(net)}

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        seen = project(taught(state))
        logits = unit_projections(seen) @ seen["prototypes"][0, 0].T  # [2, N, K]
        return {
            "codes": ((logits - state["centre"]) / state["teacher_temperature"]).softmax(-1),
            "mean": logits.mean((0, 1)),
            "prototypes": state["prototypes"],
            "frozen": state["frozen"],
        }

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        prototypes = torch.lerp(outputs["prototypes"][0, 0], targets["prototypes"], targets["frozen"])
        return swapped(targets["codes"], unit_projections(outputs) @ prototypes.T / self.temperature)

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        mean = torch.stack([task.targets["mean"] for task in tasks]).mean(0)
        temperature = self._teacher_temperature(clock.step // clock.epoch)
        frozen = clock.step < self.frozen_epochs * clock.epoch
        return {
            **super().commit(state, params, tasks, clock),
            "centre": state["centre"].lerp(mean, 1 - self.centre_momentum),
            "teacher_temperature": torch.full_like(state["teacher_temperature"], temperature),
            "prototypes": F.normalize(params["prototypes.weight"], dim=1),
            "frozen": torch.full_like(state["frozen"], float(frozen)),
        }

    def _teacher_temperature(self, epoch: int) -> float:
        """Its value in an epoch, counted from 0: a line over the warm-up, both of its ends included."""
        if epoch >= self.warmup_epochs:
            return self.teacher_temperature
        rise = self.teacher_temperature - self.teacher_temperature_start
        return self.teacher_temperature_start + rise * epoch / max(1, self.warmup_epochs - 1)
