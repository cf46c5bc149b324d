"""`scarce/linear-v1`: multinomial logistic regression on frozen features, trained on few labels.

scikit-learn's LogisticRegression (L2, C = 1) on features standardised by the mean and spread of the *whole* train
split: standardising needs no labels, and ten labelled images could not tell a spread. C is fixed rather than selected,
since one label per class leaves nothing to select on. Scored on the test split and averaged over draws of the labels.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gessl.evaluation.score import TESTED, TRAINED, Score, require
from gessl.statistics import bootstrap_mean

PROTOCOL = "scarce/linear-v1"
INVERSE_PENALTY = 1.0
ITERATIONS = 1000


def scarce_correct(
    features: NDArray[np.floating], labels: NDArray[np.integer], draws: NDArray[np.integer], test: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Which test images each draw's classifier gets right, bool [draws, test].

    Args:
        features: standardised [n, F].
        labels: class numbers [n].
        draws: positions of the labelled images [draws, m].
        test: positions of the test split.

    Raises:
        UserError: a draw holds a single class, or there is nothing to test.
    """
    from sklearn.linear_model import LogisticRegression  # costs import time that only this protocol needs

    require(PROTOCOL, TESTED, len(test), 1)
    correct = []
    for draw in draws:
        require(PROTOCOL, "classes among the images of a draw of labels", len(np.unique(labels[draw])), 2)
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=ITERATIONS).fit(features[draw], labels[draw])
        correct.append(model.predict(features[test]) == labels[test])
    return np.stack(correct)


def evaluate_scarce(
    features: Tensor, labels: Tensor, train: Tensor, test: Tensor, subsets: Mapping[str, NDArray[np.integer]]
) -> list[Score]:
    """Mean accuracy over the draws of every label subset.

    The interval resamples test images, each with its share of draws that classify it correctly; the draws are fixed.

    Args:
        features: float32 [n, F] of all images.
        labels: class numbers [n].
        train: positions of the train split.
        test: positions of the test split.
        subsets: positions [draws, m] by name, such as `1pct`.

    Raises:
        UserError: the train or the test split has no image, or a draw has a single class.
    """
    from sklearn.preprocessing import StandardScaler

    require(PROTOCOL, TRAINED, len(train), 1)
    known, tested = labels.cpu().numpy(), test.cpu().numpy()
    everything = features.double().cpu().numpy()
    standard = StandardScaler().fit(everything[train.cpu().numpy()]).transform(everything)
    scores = []
    for name, draws in subsets.items():
        correct = scarce_correct(standard, known, draws, tested)
        interval = bootstrap_mean(correct.mean(0))._replace(n=correct.size).scaled(100)
        scores.append(Score(PROTOCOL, name, "accuracy", "%", "higher", interval, correct))
    return scores
