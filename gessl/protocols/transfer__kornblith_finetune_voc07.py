"""Many-shot transfer to tagged pictures: the whole network fine-tuned, as in Kornblith et al. 2019."""

from dataclasses import dataclass

from torch import Tensor, nn

from gessl.protocols._average_precision import by_category, mean_average_precision
from gessl.protocols._fine_tuning import FineTunedGrid, Point, Split
from gessl.protocols._fitting import Fitting, TagFitting
from gessl.protocols._items import require
from gessl.protocols.contract import Target
from gessl.tables.scores import Card, Score


@dataclass(frozen=True, kw_only=True)
class KornblithFineTunedVoc07(FineTunedGrid):
    """VOC 2007's mAP of a fine-tuned network with an output for each category.

    Of each image, categories of which nobody says whether it shows them (VOC's `difficult` objects alone) are left out
    of the loss and of the score.
    """

    wants = frozenset({"tags", "encoder"})

    def cards(self) -> dict[str, Card]:
        """One card."""
        text = (
            "An output for each category, trained by the mean of the logistic losses of a batch's images and "
            "categories. `map11` is the mean over categories of VOC 2007's average precision at eleven recalls, as its "
            "devkit has it. Images that show a category as difficult objects alone are left out of it. Its interval "
            "leaves out groups of images (jackknife)."
        )
        return {self.name: self.card(text)}

    def fitting(self, point: Point, encoder: nn.Module, target: Target, seed: int) -> Fitting:
        """What trains the network on tags."""
        return TagFitting(point, encoder, target, seed)

    def require_part(self, target: Target, split: Split) -> None:
        """Refuse a split whose images do not both show and not show each category."""
        tags = target.tags[getattr(target, split)]
        both = int(((tags == 1).any(0) & (tags == -1).any(0)).sum())
        require(self.id, f"categories that some images of split '{split}' show and others do not", both, tags.shape[1])

    def percent(self, logits: Tensor, target: Target) -> float:
        """The mAP."""
        scores, tags = logits.double().cpu().numpy(), target.tags[target.test].cpu().numpy()
        return 100 * float(by_category(scores, tags).mean())

    def scored(self, fitting: Fitting, target: Target) -> Score:
        """The mAP."""
        scores, tags = fitting.finite_logits().double().cpu().numpy(), target.tags[target.test].cpu().numpy()
        interval, items = mean_average_precision(scores, tags)
        return Score(self.name, "all", "map11", "%", "higher", interval.scaled(100), items)
