"""ReSSL (Zheng et al. 2021, https://arxiv.org/abs/2107.09282)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from gessl.methods._queue import KeyQueue
from gessl.methods.base import Batch, Project, Tensors
from gessl.settings import Count, Momentum, Temperature, Width


@dataclass(frozen=True)
class ReSSL(KeyQueue):
    """The student's similarities to a queue follow those, more sharply weighted, of a teacher on a weaker view.

    View 0 is the student's, strongly augmented; view 1 the teacher's, only cropped and flipped: the view policy has to
    say so. As the official code (https://github.com/mingkai-zheng/ReSSL/blob/main/ressl.py and network/): one-sided,
    no BatchNorm in the head, a constant momentum, the teacher's projections enter the queue after the loss.
    """

    hidden: Width = 4096
    dim: Width = 512
    queue: Count = 131072
    temperature: Temperature = 0.1
    teacher_temperature: Temperature = 0.04
    momentum: Momentum = 0.999
    momentum_end: Momentum = 0.999

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        held = super().targets(outputs, state, project, batch)
        relation = (held["key"] @ held["queue"].T / self.teacher_temperature).softmax(1)
        return {**held, "relation": relation}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        query = F.normalize(outputs["z"][0], dim=1)
        return F.cross_entropy(query @ targets["queue"].T / self.temperature, targets["relation"])
