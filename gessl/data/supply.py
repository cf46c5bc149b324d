"""How many images a data set gives: as its card counts them, or, before it is prepared, as the registry has it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from gessl.data.fields import KEPT
from gessl.data.pin import data_version
from gessl.data.registry import SPLITS, Dataset
from gessl.errors import UserError
from gessl.files import read_json
from gessl.layout import RECORD, data_dir

SLACK = 1.1  # the registry does not tell how even its classes are; digits' largest has 2 % above the mean


@dataclass(frozen=True)
class Supply:
    """What can be drawn from; of what only the registry tells, rather too much than too little.

    Attributes:
        train: images to train on, with or without labels.
        classes: images of each class that has any, by split.
        shared: whether a class may have images in train and in test.
        counted: whether a card counted them.
        runs: whether they make up published tasks.
        annotations: what is annotated in the pictures: the kinds of `gessl.data.fields.Annotation`.
    """

    train: int
    classes: Mapping[str, tuple[int, ...]]
    shared: bool
    counted: bool
    runs: bool = False
    annotations: frozenset[str] = frozenset()

    def classes_with(self, split: str, images: int) -> int:
        """How many classes of a split have at least that many images."""
        return sum(count >= images for count in self.classes[split])


def supply(entry: Dataset) -> Supply:
    """What `entry` gives."""
    kinds = frozenset(entry.annotations.kinds if entry.annotations else ())
    return replace(_counted(entry) or _expected(entry), runs=entry.split.rule == "runs", annotations=kinds)


def _counted(entry: Dataset) -> Supply | None:
    """By the card, if there is one of the present data and split."""
    folder = data_dir(entry.name)
    try:
        if not (folder / RECORD).is_file():
            return None
        card = read_json(folder / "card.json")
        same = all(card["split"][key] == value for key, value in asdict(entry.split).items())
        if not same or card["data_version"] != data_version(entry.name):
            return None
        counts = {
            split: {name: int(count) for name, count in card["counts"][split].items() if count} for split in SPLITS
        }
        train = sum(counts["train"].values()) + int(card["unlabelled"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, UserError):
        return None  # a card that is damaged is the audit's matter
    shared = bool(counts["train"].keys() & counts["test"].keys())
    return Supply(train, {split: tuple(by_class.values()) for split, by_class in counts.items()}, shared, True)


def _expected(entry: Dataset) -> Supply:
    """By the registry: classes of about the same size, shared out by the rule."""
    rule, parts, count = entry.split, entry.parts, entry.classes
    extra = parts.get("unlabelled", 0)
    if rule.rule in KEPT:
        novel, labelled = rule.rule == "novel", sum(parts.get(split, 0) for split in SPLITS)
        sizes = {split: _kept(parts.get(split, 0), labelled if novel else 0, count) for split in SPLITS}
        return Supply(parts.get("train", 0) + extra, sizes, bool(count) and not novel, False)
    if rule.rule == "classes":
        test, val = (max(1, round((share or 0.0) * count)) for share in (rule.test, rule.val))
        classes, each = {"train": max(0, count - test - val), "val": val, "test": test}, parts["all"] / count
        sizes = {split: (_above(each),) * number for split, number in classes.items()}
        return Supply(_above(each * classes["train"]) + extra, sizes, False, False)
    stratified = rule.rule != "published"
    pool = parts["all" if stratified else "train"] / count
    val, drawn = (max(1, round((share or 0.0) * pool)) for share in (rule.val, rule.test))
    left = pool - val - (drawn if stratified else 0)
    per_class = {"train": left, "val": val, "test": drawn if stratified else parts["test"] / count}
    rounded = count  # half an image of each class for val and as much for test
    return Supply(
        math.ceil(left * count) + rounded + extra,
        {split: (_above(images),) * count for split, images in per_class.items()},
        True,
        False,
    )


def _kept(images: int, labelled: int, classes: int) -> tuple[int, ...]:
    """Images of each class of a part: of all classes, or, of `labelled` images in all, of classes of its own."""
    each = labelled / classes if labelled else images / max(1, classes)
    return (_above(each),) * (round(images / each) if labelled else classes)


def _above(images: float) -> int:
    return math.ceil(images * SLACK)
