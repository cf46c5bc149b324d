"""What classifies the queries of an episode by the features of its support, each query on its own (inductive)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gessl.protocols._distances import distances, products_at, reach
from gessl.protocols._episodes import Episodes
from gessl.protocols.embed import position_tensor

BLOCK = 2**21  # support features, and pairs of query and class, of the episodes that are taken at once


def nearest_means(features: Tensor, episodes: Episodes, *, cosine: bool = False) -> Tensor:
    """The class whose mean is nearest to each query.

    Args:
        features: float [n, F] of all images.
        episodes: their positions, class by class.
        cosine: whether features and then means are scaled to length 1, so that the nearest has the largest cosine;
            ProtoNet's squared Euclidean distance otherwise (Snell et al. 2017, equations 1 and 2).

    Returns:
        place of the class within the episode [E, way, queries]; ties go to the first.
    """
    features = F.normalize(features, dim=-1) if cosine else features
    supports, queries = (position_tensor(part, features.device) for part in (episodes.support, episodes.query))
    _, way, shot = supports.shape
    norms = torch.linalg.vector_norm(features, dim=-1)
    block = max(1, BLOCK // (way * max(shot * features.shape[1], queries[0].numel())))
    predicted = []
    for support, query in zip(supports.split(block), queries.split(block), strict=True):
        # several times as fast as `features[support]`
        means = features.index_select(0, support.flatten()).view(*support.shape, -1).mean(-2)
        means = F.normalize(means, dim=-1) if cosine else means
        predicted.append(nearest(features, norms, means, query.flatten(1)))
    return torch.cat(predicted).view(queries.shape)


def nearest(features: Tensor, norms: Tensor, prototypes: Tensor, queries: Tensor) -> Tensor:
    """The nearest prototype of each query.

    Args:
        features: float [n, F].
        norms: Euclidean norms of the features [n].
        prototypes: [E, way, F].
        queries: positions [E, q] of features.

    Returns:
        place of the class within the episode [E, q]; ties go to the first.
    """
    squares, error = products_at(features, norms, queries, prototypes)  # not centred: that takes longer
    least, found = squares.min(-1)
    near = squares <= reach(least, error, features)[..., None]
    episode, query = (near.sum(-1) != 1).nonzero(as_tuple=True)  # none where the error is NaN
    exact = distances(features[queries[episode, query], None], prototypes[episode])
    found[episode, query] = exact.argmin(-1)[:, 0]
    return found


def logistic(features: Tensor, episodes: Episodes, inverse_penalty: float, iterations: int) -> Tensor:
    """The class that logistic regression gives each query, fitted to the support of its episode.

    scikit-learn's, multinomial with an L2 penalty, on features scaled to length 1, as RFS' code has it:
    https://github.com/WangYueFt/rfs, eval/meta_eval.py.

    Args:
        features: float [n, F] of all images.
        episodes: their positions, class by class.
        inverse_penalty: scikit-learn's C.
        iterations: most that the solver takes.

    Returns:
        place of the class within the episode [E, way, queries], on the device of the features.
    """
    from sklearn.linear_model import LogisticRegression  # costs import time that only this head needs

    scaled = F.normalize(features, dim=-1).double().cpu().numpy()
    _, way, shot = episodes.support.shape
    known, predicted = np.arange(way).repeat(shot), np.empty(episodes.query.shape, np.int64)
    for episode, (support, query) in enumerate(zip(episodes.support, episodes.query, strict=True)):
        model = LogisticRegression(C=inverse_penalty, max_iter=iterations).fit(scaled[support.ravel()], known)
        predicted[episode] = model.predict(scaled[query.ravel()]).reshape(query.shape)
    return torch.from_numpy(predicted).to(features.device)


def right(predicted: Tensor) -> Tensor:
    """Whether each query [E, way, queries] is given its own class, bool of the same shape."""
    return predicted == torch.arange(predicted.shape[1], device=predicted.device)[:, None]
