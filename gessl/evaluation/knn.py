"""`knn/5nn-euclid`: five nearest neighbours on raw features, as in the W-MSE paper and its code.

https://github.com/htdt/self-supervised/blob/master/eval/knn.py: k = 5, Euclidean distance on features that are not
normalised, unweighted majority, ties to the smallest class number.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gessl.evaluation.score import TRAINED, Score, accuracy_score, require

PROTOCOL = "knn/5nn-euclid"
NEIGHBOURS = 5
CHUNK_BYTES = 2**28  # of the distance matrix held at once


def knn_predict(bank: Tensor, bank_labels: Tensor, queries: Tensor, *, classes: int, k: int = NEIGHBOURS) -> Tensor:
    """Majority class of the k nearest neighbours of each query.

    Args:
        bank: float [m, F].
        bank_labels: class numbers [m].
        queries: float [q, F].
        classes: number of classes of the data set.
        k: neighbours; all have one vote.

    Returns:
        class numbers [q].

    Raises:
        UserError: the bank holds fewer than k features.
    """
    require(PROTOCOL, TRAINED, len(bank), k)
    rows = max(1, CHUNK_BYTES // (len(bank) * bank.element_size()))
    predictions = []
    for chunk in queries.split(rows):
        # the matrix-product form of the distance cancels badly where features are far from 0 and alike
        distances = torch.cdist(chunk, bank, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.topk(k, largest=False).indices
        votes = F.one_hot(bank_labels[nearest], classes).sum(1)
        predictions.append(votes.argmax(1))  # the first of equals, so the smallest class number
    return torch.cat(predictions)


def evaluate_knn(features: Tensor, labels: Tensor, train: Tensor, test: Tensor, *, classes: int) -> list[Score]:
    """Accuracy on the test split with the whole train split as bank; arguments as in `linear.evaluate_linear`.

    Raises:
        UserError: the train split has fewer images than there are neighbours, or the test split has none.
    """
    predicted = knn_predict(features[train], labels[train], features[test], classes=classes)
    return [accuracy_score(PROTOCOL, "all", predicted == labels[test])]
