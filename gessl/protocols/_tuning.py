"""An encoder and a head on its features, tuned together on a task's few labelled images."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.optimizer import Optimizer
from gessl.protocols._sigma import class_anchors


def tuned(encoder: nn.Module, images: Tensor, way: int, rate: float, temperature: float) -> Iterator[Tensor]:
    """Fit `encoder`, in place, and a head to labelled images with full-batch Adam, for as long as it is asked.

    The head is linear on L2-normalised features and starts at the anchors, so that before the first step it gives the
    frozen posterior. Batch normalisation keeps the encoder's statistics: no image informs another's prediction.

    Args:
        encoder: maps images [B, C, H, W] to features [B, F]; in eval mode. Its parameters change, its buffers do not.
        images: [way * a, C, H, W], class by class.
        way: number of classes.
        rate: Adam's.
        temperature: of the posterior.

    Yields:
        the head's weights [way, F], before the first step and after each; the encoder then is that of the same step.
    """
    labels = torch.arange(way, device=images.device).repeat_interleave(len(images) // way)
    with torch.no_grad():
        anchors = class_anchors(encoder(images).unflatten(0, (way, -1)))
    head = F.normalize(anchors, dim=-1).requires_grad_()
    params = {name: parameter.requires_grad_() for name, parameter in encoder.named_parameters()}
    optimizer = Optimizer({**params, "head": head})
    while True:
        yield head.detach()
        optimizer.minimise(F.nll_loss(log_scores(encoder, head, images, temperature), labels), rate)


def log_scores(encoder: nn.Module, head: Tensor, images: Tensor, temperature: float) -> Tensor:
    """Log posterior [B, way] of images [B, C, H, W]."""
    return F.log_softmax(F.normalize(encoder(images), dim=-1) @ head.T / temperature, dim=-1)
