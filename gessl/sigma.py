"""The σ-measurement: how far a model's class posterior on a task lies from that of the task's optimal model.

    σ(f) = Σ_tasks Σ_x KL(π(f(x)) ‖ π(f*_task(x)))        (GeSSL, arXiv 2405.01053 v4, Definition 3.2)

The model comes first, the optimal model second; smaller is better. The paper's public texts do not say how the
posterior π is built from features. Here π is the softmax of the cosine similarities between a sample and the anchors of
the task's classes, divided by a temperature; the anchors are the images' other views in training, class means in
evaluation.

Everything is plain differentiable torch: nothing here stops a gradient, the caller does.
"""

import math
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Divergence = Literal["kl", "reverse_kl", "js", "l2", "cosine"]
DIVERGENCES: tuple[str, ...] = get_args(Divergence)

# A model worse than chance would be calibrated best by an infinite temperature.
CALIBRATION_BOUNDS = (0.01, 100.0)


class Sigma(NamedTuple):
    """Mean and sum of the divergences `per_example` (nats, shape [...]); the sum grows with the number of examples."""

    mean: Tensor
    sum: Tensor
    per_example: Tensor


def log_posterior(samples: Tensor, anchors: Tensor, temperature: float) -> Tensor:
    """Log class probabilities of each sample: log softmax over the anchors of cosine similarity / temperature.

    Args:
        samples: embeddings [..., n, D].
        anchors: one embedding per class [..., N, D].
        temperature: positive scale of the similarities.

    Returns:
        [..., n, N], nats.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature: must be positive, got {temperature}; take for example 0.5")
    cosine = F.normalize(samples, dim=-1) @ F.normalize(anchors, dim=-1).transpose(-1, -2)
    return F.log_softmax(cosine / temperature, dim=-1)


def task_log_posterior(z: Tensor, temperature: float, symmetric: bool = True) -> Tensor:
    """Posterior on a mini-batch task, where each image is a class: one view gives the samples, the other the anchors.

    Args:
        z: embeddings [V, N, D] of V >= 2 views of N images; views 0 and 1 are used, further ones (small crops) are not.
        temperature: see `log_posterior`.
        symmetric: also swap the roles of the two views.

    Returns:
        [P, N, N], nats, with P = 2 if symmetric and else 1; the right class of row i is i.

    Raises:
        ValueError: `z` does not hold two views.
    """
    if z.ndim != 3 or z.shape[0] < 2:
        raise ValueError(f"z: must be [views >= 2, images, features], got {tuple(z.shape)}; embed two views per image")
    first, second = z[0], z[1]
    if not symmetric:
        return log_posterior(first, second, temperature)[None]
    return log_posterior(torch.stack((first, second)), torch.stack((second, first)), temperature)


def divergence(log_p: Tensor, log_q: Tensor, kind: Divergence) -> Tensor:
    """Divergence of two log probability tensors over their last dimension.

    Args:
        log_p: the model [..., N]; finite.
        log_q: the reference (optimal model, target) [..., N]; finite.
        kind: "kl" is KL(P‖Q), the order of σ; "reverse_kl" is KL(Q‖P); "js" is the Jensen-Shannon divergence; "l2" is
            Σ (P - Q)², no entropy.

    Returns:
        [...], nats ("l2": none); exactly 0 where `log_p` equals `log_q`.

    Raises:
        ValueError: unknown kind, or "cosine", which compares embeddings: see `discrepancy`.
    """
    if kind == "kl":
        return (log_p.exp() * (log_p - log_q)).sum(-1)
    if kind == "reverse_kl":
        return divergence(log_q, log_p, "kl")
    if kind == "js":
        # log(P / M) = log 2 - log(1 + Q/P) with M = (P + Q) / 2: no underflow, and exactly 0 at equality
        ratio = log_q - log_p
        zero = torch.zeros_like(ratio)
        above = log_p.exp() * (math.log(2) - torch.logaddexp(ratio, zero))
        below = log_q.exp() * (math.log(2) - torch.logaddexp(-ratio, zero))
        return (above + below).sum(-1) / 2
    if kind == "l2":
        return (log_p.exp() - log_q.exp()).square().sum(-1)
    raise ValueError(f"divergence: {kind!r} of posteriors is unknown; choose kl, reverse_kl, js or l2")


def discrepancy(z: Tensor, z_reference: Tensor, kind: Divergence, temperature: float, symmetric: bool = True) -> Tensor:
    """How far a model's embeddings of a mini-batch task lie from the reference's: the outer loss of GeSSL.

    Args:
        z: embeddings of the model [V, N, D].
        z_reference: embeddings of the same views by the reference (target) [V, N, D].
        kind: see `divergence`, between the task posteriors; or "cosine", the mean of 1 - cos(z, z_reference) over
            views and images, without a posterior (the temperature and `symmetric` then do nothing).
        temperature: see `log_posterior`.
        symmetric: see `task_log_posterior`.

    Returns:
        Scalar, the mean over samples; 0 where both agree.
    """
    if kind == "cosine":
        # half the squared distance on the sphere: equal to 1 - cos, and exactly 0 at equality
        return (F.normalize(z, dim=-1) - F.normalize(z_reference, dim=-1)).square().sum(-1).mean() / 2
    log_p, log_q = (task_log_posterior(each, temperature, symmetric) for each in (z, z_reference))
    return divergence(log_p, log_q, kind).mean()


def posterior_entropy(log_p: Tensor) -> Tensor:
    """Shannon entropy [...] in nats of log probabilities [..., N]; log N belongs to a uniform, useless posterior."""
    return -(log_p.exp() * log_p).sum(-1)


def sigma(log_p: Tensor, log_q: Tensor, kind: Divergence = "kl") -> Sigma:
    """σ of the model's log posterior [..., N] from the reference's, over all leading dimensions; see `divergence`."""
    per_example = divergence(log_p, log_q, kind)
    return Sigma(per_example.mean(), per_example.sum(), per_example)


def smoothed_onehot(labels: Tensor, classes: int, eps: float) -> Tensor:
    """Log probabilities of smoothed labels: (1 - eps) on the label plus eps / classes on every class.

    KL(model ‖ one-hot) is infinite, so the smoothing belongs to the name of any σ against labels.

    Args:
        labels: class numbers [...].
        classes: number of classes N.
        eps: share of the uniform distribution, in (0, 1].

    Returns:
        float64 [..., N], nats.

    Raises:
        ValueError: `eps` outside (0, 1].
    """
    if not 0 < eps <= 1:
        raise ValueError(f"eps: must lie in (0, 1], got {eps}; without smoothing KL(model ‖ one-hot) is infinite")
    onehot = F.one_hot(labels.long(), classes).double()
    return ((1 - eps) * onehot + eps / classes).log()


def calibration_temperature(log_scores: Tensor, labels: Tensor) -> float:
    """The temperature T that minimises the cross-entropy of softmax(log_scores / T) on validation data.

    Temperature scaling of Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), section 4.2, on labels
    smoothed as if each class had been seen once more, (n · one-hot + 1) / (n + N), after Platt (1999): with plain
    labels a flawless validation set would send T to zero, and σ to whatever number the search stops at.

    Args:
        log_scores: logits or log probabilities [n, N] (their difference, a constant per row, does not matter).
        labels: class numbers [n].

    Returns:
        T within `CALIBRATION_BOUNDS`, from a bounded scalar search over log T in float64.
    """
    from scipy.optimize import minimize_scalar  # costs import time that only evaluation needs

    scores, targets = log_scores.detach().double(), labels.long()
    images, classes = scores.shape

    def loss(log_temperature: float) -> float:
        scaled = scores / math.exp(log_temperature)
        return F.cross_entropy(scaled, targets, label_smoothing=classes / (images + classes)).item()

    low, high = CALIBRATION_BOUNDS
    found = minimize_scalar(loss, bounds=(math.log(low), math.log(high)), method="bounded", options={"xatol": 1e-6})
    return math.exp(found.x)
