"""σ against the task's labels, smoothed by ε (without it the divergence is infinite)."""

from dataclasses import dataclass
from typing import Annotated

from gessl.protocols._sigma import SigmaProtocol, frozen_posteriors, task_labels
from gessl.protocols._suite import read_suite
from gessl.protocols.contract import Arrays, Subject, Target
from gessl.settings import Range
from gessl.sigma import smoothed_onehot
from gessl.tables.scores import Card, Score


@dataclass(frozen=True, kw_only=True)
class SigmaOnehot(SigmaProtocol):
    """σ against smoothed labels, as is and calibrated.

    Attributes:
        eps: smoothing of the one-hot reference, in (0, 1].
    """

    eps: Annotated[float, Range(gt=0, le=1)]

    free = SigmaProtocol.free | {"eps"}

    @property
    def _name(self) -> str:
        return f"{self.id}-eps{self.eps:g}{self.metric}"

    def cards(self) -> dict[str, Card]:
        """As is, and calibrated."""
        return self.sigma_cards(self._name, f"the task's labels, smoothed by ε = {self.eps:g}")

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Mean and sum over the suite, as is and calibrated."""
        suite = read_suite(tasks)
        suite.require(self._name)
        model = frozen_posteriors(subject.features, suite, self.temperature)
        reference = smoothed_onehot(task_labels(model.test), model.test.shape[-1], self.eps)
        return [
            *self.sigma_scores(self._name, model.test, reference),
            *self.sigma_scores(f"{self._name}-cal", model.calibrated().test, reference),
        ]
