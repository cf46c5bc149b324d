"""The linear probe of W-MSE's paper on standardised features.

One rate serves features of one scale: the scale of an encoder's features, which says nothing of their worth, then
decides how far the probe gets (Lee et al., "Rethinking Evaluation Protocols of Visual Representations Learned via
Self-supervised Learning", arXiv 2304.03456). Standardised, encoders are compared on one scale.
"""

from dataclasses import dataclass

from gessl.protocols.contract import Arrays, Subject, Target
from gessl.protocols.linear__wmse_v1 import LinearProbe
from gessl.tables.scores import Card, Score


@dataclass(frozen=True)
class StandardisedProbe(LinearProbe):
    """`LinearProbe` on features less their mean and over their standard deviation, both of the train split."""

    def cards(self) -> dict[str, Card]:
        """One card."""
        text = (
            "Linear probe as linear/wmse-v1, on features less their mean and over their standard deviation, both of "
            "the labelled train images; features that never change are only centred."
        )
        return {self.id: Card(text, "https://arxiv.org/abs/2304.03456")}

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Accuracy on the test split."""
        known = subject.features[target.train]
        spread = known.std(0, correction=0) if len(known) else known.sum(0)
        features = (subject.features - known.mean(0)) / spread.where(spread > 0, 1.0)
        return super().score(subject._replace(features=features), target, tasks, seed)
