"""Logistic regression on frozen features under a grid of L2 penalties, as in Kornblith et al. 2019.

As code it is https://github.com/linusericsson/ssl-transfer/blob/main/linear.py (Ericsson et al., CVPR 2021), which
runs scikit-learn.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gessl.protocols.contract import Protocol, Subject
from gessl.settings import Count, Misfit, Range, Weight

SOURCE = "https://github.com/linusericsson/ssl-transfer/blob/main/linear.py"
Rows = NDArray[Any]


@dataclass(frozen=True)
class Penalised(Protocol):
    """A protocol whose penalty is chosen on val.

    The objective is Σ cross-entropy + penalty / 2 · ‖W‖², the bias free, which scikit-learn minimises by L-BFGS in
    float64, through the penalties upwards, each time from the solution before. It stops after `iterations`, or where no
    entry of the gradient of the mean over images is above `tolerance`.

    Attributes:
        penalties: how many, evenly spaced by their logarithms.
        least, most: the first and the last of them.
        iterations: most that L-BFGS takes for one penalty.
        tolerance: largest entry of the gradient at which it stops.
    """

    penalties: Annotated[int, Range(ge=1, le=1000)]
    least: Weight
    most: Weight
    iterations: Count
    tolerance: Annotated[float, Range(gt=0, le=1)]

    def contradictions(self) -> Iterator[Misfit]:
        """A grid that does not go upwards from above 0."""
        if not 0 < self.least <= self.most:
            yield Misfit(("least", "most"), f"must be above 0 and in order, got {self.least:g} and {self.most:g}")

    @property
    def grid(self) -> NDArray[np.float64]:
        """The penalties, upwards."""
        return np.geomspace(self.least, self.most, self.penalties)

    @property
    def words(self) -> str:
        """Of how the penalty is chosen, for the card."""
        return (
            f"L-BFGS, the L2 penalty chosen on the val split from {self.penalties} values between {self.least:g} and "
            f"{self.most:g} (the smallest of the best), then refit on train and val and scored on the test split once"
        )

    def model(self) -> Any:
        """scikit-learn's."""
        from sklearn.linear_model import LogisticRegression  # costs import time that only these protocols need

        return LogisticRegression(warm_start=True, max_iter=self.iterations, tol=self.tolerance)


def fit(model: Any, penalty: float, features: Rows, labels: Rows) -> Any:
    """The model under a penalty, from where it stands; that it stops after some iterations is part of the protocol."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(category=ConvergenceWarning, action="ignore"):
        return model.set_params(C=1 / penalty).fit(features, labels)


def features_at(subject: Subject, positions: Tensor) -> Rows:
    """Features of images at `positions`, in float64 as the source's solver takes them."""
    return subject.features[positions].double().cpu().numpy()
