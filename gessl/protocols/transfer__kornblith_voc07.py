"""Many-shot transfer to tagged pictures: a logistic regression for each category, one penalty chosen on val by mAP.

PASCAL VOC 2007 as SimCLR (appendix B.8) has it, after Kornblith et al., "Do Better ImageNet Models Transfer Better?"
(CVPR 2019); as code in https://github.com/linusericsson/ssl-transfer/blob/main/linear.py (Ericsson et al., CVPR 2021).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gessl.protocols._average_precision import by_category, mean_average_precision
from gessl.protocols._items import first_best, require
from gessl.protocols._penalties import SOURCE, Penalised, Rows, features_at, fit
from gessl.protocols.contract import Arrays, Choice, Subject, Target
from gessl.tables.scores import Card, Score

Tags = NDArray[np.int8]


@dataclass(frozen=True)
class KornblithVoc07(Penalised):
    """Mean over the categories of the average precision at eleven recalls.

    Images of which nobody says whether they show a category (VOC's `difficult` objects alone) are left out where that
    category is fitted, and do not count where it is scored. Each category goes through the penalties from its own
    solution before.
    """

    wants = frozenset({"tags", "features"})

    def cards(self) -> dict[str, Card]:
        """One card."""
        text = (
            "A logistic regression on frozen features for each category, against the images that do not show it, as in "
            f"Kornblith et al. 2019: {self.words}. One penalty for all categories. `map11` is the mean over categories "
            "of VOC 2007's average precision at eleven recalls, as its devkit has it; code that takes scikit-learn's "
            "curve has a point more, and is up to 1/11 higher. Images that show a category as difficult objects alone "
            "are left out of it. Its interval leaves out groups of images (jackknife)."
        )
        return {self.id: Card(text, f"arXiv 1805.08974; arXiv 2002.05709, appendix B.8; {SOURCE}")}

    def choose(self, subject: Subject, target: Target, seed: int) -> Choice:
        """The penalty that is best on val; `penalties` and `val`, the mAP in percent, say why."""
        features, tags = self._part(subject, target, target.train, "train")
        queries, truth = self._part(subject, target, target.val, "val")
        scores = np.empty((self.penalties, *truth.shape))
        for category, tag in enumerate(tags.T):
            model, known = self.model(), tag != 0
            rows, shown = features[known], tag[known] == 1
            for place, penalty in enumerate(self.grid):
                scores[place, :, category] = fit(model, penalty, rows, shown).decision_function(queries)
        found = [100 * float(by_category(each, truth).mean()) for each in scores]
        return {"penalty": float(self.grid[first_best(found)]), "penalties": self.grid.tolist(), "val": found}

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """mAP on the test split of a refit on train and val with the chosen penalty.

        Raises:
            UserError: images of a split do not both show and not show each category.
        """
        features, tags = self._part(subject, target, torch.cat([target.train, target.val]), "train")
        queries, truth = self._part(subject, target, target.test, "test")
        scores, penalty = np.empty(truth.shape), float(tasks["penalty"])
        for category, tag in enumerate(tags.T):
            known = tag != 0
            model = fit(self.model(), penalty, features[known], tag[known] == 1)
            scores[:, category] = model.decision_function(queries)
        interval, items = mean_average_precision(scores, truth)
        return [Score(self.id, "all", "map11", "%", "higher", interval.scaled(100), items)]

    def _part(self, subject: Subject, target: Target, positions: Tensor, split: str) -> tuple[Rows, Tags]:
        """Features and tags of images at `positions`, of each category some that show it and some that do not.

        Raises:
            UserError: they do not.
        """
        tags = target.tags[positions].cpu().numpy()
        both = int(((tags == 1).any(0) & (tags == -1).any(0)).sum())
        require(self.id, f"categories that some images of split '{split}' show and others do not", both, tags.shape[1])
        return features_at(subject, positions), tags
