"""`linear/wmse-v1`: the linear probe on frozen features of the W-MSE paper.

Ermolov et al., "Whitening for Self-Supervised Representation Learning" (ICML 2021), and its code,
https://github.com/htdt/self-supervised/blob/master/eval/sgd.py: one linear layer, cross-entropy, Adam, 500 epochs of
batches of 1000, the rate falling exponentially per epoch, weight decay 5e-6, the last epoch counts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.evaluation.score import Score, accuracy_score
from gessl.rng import generator

PROTOCOL = "linear/wmse-v1"
EPOCHS, BATCH = 500, 1000
FIRST_RATE, LAST_RATE = 1e-2, 1e-6
WEIGHT_DECAY = 5e-6


def linear_probe(features: Tensor, labels: Tensor, classes: int, seed: int) -> nn.Linear:
    """Train the probe.

    Args:
        features: frozen features of the train images, float [n, F].
        labels: class numbers [n].
        classes: number of classes of the data set (not of these labels, which may miss some).
        seed: decides the initial weights and the order of the images.

    Returns:
        the layer after the last epoch.
    """
    random = generator(seed, PROTOCOL)
    probe: nn.Linear = nn.utils.skip_init(
        nn.Linear, features.shape[1], classes, device=features.device, dtype=features.dtype
    )
    bound = features.shape[1] ** -0.5  # the default of nn.Linear, drawn from our own generator
    with torch.no_grad():
        for parameter in probe.parameters():
            parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=random))
    adam = torch.optim.Adam(probe.parameters(), lr=FIRST_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    decay = (LAST_RATE / FIRST_RATE) ** (1 / EPOCHS)
    for epoch in range(EPOCHS):
        adam.param_groups[0]["lr"] = FIRST_RATE * decay**epoch
        order = torch.randperm(len(features), generator=random).to(features.device)
        # The reference drops the last, smaller batch, which is harmless only where 1000 divides n: it would leave out
        # 200 of 1200 images in every epoch, and all of them below 1000. Here it is kept.
        for batch in order.split(BATCH):
            loss = F.cross_entropy(probe(features[batch]), labels[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()
    return probe


def evaluate_linear(
    features: Tensor, labels: Tensor, train: Tensor, test: Tensor, *, classes: int, seed: int
) -> list[Score]:
    """Probe accuracy on the test split.

    Args:
        features: float32 [n, F] of all images, not normalised.
        labels: class numbers [n].
        train: positions of the train split.
        test: positions of the test split.
        classes: number of classes of the data set.
        seed: see `linear_probe`.
    """
    probe = linear_probe(features[train], labels[train], classes, seed)
    with torch.inference_mode():
        correct = probe(features[test]).argmax(1) == labels[test]
    return [accuracy_score(PROTOCOL, "all", correct)]
