"""`fewshot/proto-v1`: nearest class mean in episodes, on frozen backbone features, nothing trained.

ProtoNet's rule (Snell et al. 2017, equations 1 and 2: squared Euclidean distance to class means) applied to pretrained
features, as https://github.com/linusericsson/ssl-transfer does. Inductive: a query is classified on its own.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gessl.evaluation.distances import distances, products, reach
from gessl.evaluation.embed import position_tensor
from gessl.evaluation.score import Score, require
from gessl.statistics import Interval
from gessl.tasks.read import Episodes

PROTOCOL = "fewshot/proto-v1"
BLOCK_BYTES = 2**22  # of features of queries gathered at once: what a processor's cache holds


def prototype_predict(support: Tensor, queries: Tensor) -> Tensor:
    """The nearest prototype of each query.

    Args:
        support: features [E, way, shot, F].
        queries: features [E, q, F].

    Returns:
        place of the class within the episode [E, q]; ties go to the first.
    """
    prototypes = support.mean(-2)
    squares, error = products(queries, prototypes)  # not centred: that takes as long as the products do
    least, nearest = squares.min(-1)
    near = squares <= reach(least, error, queries)[..., None]
    episode, query = (near.sum(-1) != 1).nonzero(as_tuple=True)  # none where the error is NaN
    nearest[episode, query] = distances(queries[episode, query, None], prototypes[episode]).argmin(-1)[:, 0]
    return nearest


def episode_accuracies(features: Tensor, episodes: Episodes) -> Tensor:
    """Share of queries classified correctly in each episode, float64 [E].

    Args:
        features: float32 [n, F] of all images.
        episodes: their positions, class by class.

    Raises:
        UserError: there is no episode, or none has support and queries of two classes.
    """
    count, way, shot = episodes.support.shape
    require(PROTOCOL, "episodes", count, 1)
    require(PROTOCOL, "classes an episode", way, 2)
    require(PROTOCOL, "support and query images of a class", min(shot, episodes.query.shape[2]), 1)
    supports, queries = (position_tensor(part, features.device) for part in (episodes.support, episodes.query))
    block = max(1, BLOCK_BYTES // (queries[0].numel() * features[0].nbytes))
    predicted = torch.cat(
        [
            prototype_predict(_gather(features, support), _gather(features, query.flatten(1)))
            for support, query in zip(supports.split(block), queries.split(block), strict=True)
        ]
    )
    truth = torch.arange(way, device=predicted.device).repeat_interleave(queries.shape[2])
    return (predicted == truth).double().mean(1)


def _gather(features: Tensor, positions: Tensor) -> Tensor:
    """`features[positions]`, several times as fast."""
    return features.index_select(0, positions.flatten()).view(*positions.shape, -1)


def episodes_normal(accuracies: Tensor) -> Interval:
    """Mean over episodes ± 1.96 sd / √E (unbiased sd), the interval that few-shot papers print.

    It tells how well the mean over *these* test images is known. Episodes are drawn from one pool with replacement, so
    it understates the uncertainty about new images, several-fold for a small pool (Lafargue et al. 2024, "Oops, I
    Sampled it Again"). Compare methods by differences on the same episodes instead.
    """
    mean, episodes = float(accuracies.mean()), accuracies.numel()
    if episodes == 1:
        return Interval(mean, None, None, 1, "")
    half = 1.96 * float(accuracies.std()) / math.sqrt(episodes)
    return Interval(mean, mean - half, mean + half, episodes, "episodes-normal")


def evaluate_fewshot(features: Tensor, settings: Mapping[str, Episodes]) -> list[Score]:
    """Mean episode accuracy of every setting.

    Args:
        features: float32 [n, F] of all images.
        settings: episodes by name, such as `5w1s`.
    """
    scores = []
    for name, episodes in settings.items():
        accuracies = episode_accuracies(features, episodes)
        interval = episodes_normal(accuracies).scaled(100)
        scores.append(Score(PROTOCOL, name, "accuracy", "%", "higher", interval, accuracies.cpu().numpy()))
    return scores
