"""Train, val and test: drawn once per data set, never tearing equal images apart."""

import numpy as np
import pandas as pd

from gessl.data.registry import Dataset
from gessl.errors import UserError
from gessl.rng import numpy_generator

LEFT_OUT = ""  # split of images that must not be trained on, because they are also in val or test


def draw_split(entry: Dataset, catalogue: pd.DataFrame) -> pd.DataFrame:
    """Decide the split of every image.

    Equal images (same pixels) share a group, named after the first of them, and stay in train, so that what is drawn
    for val and test is distinct. Where the test set is published it stays as it is: a training image that is also in
    it is left out (split ""), since training on it would leak and moving it would change the test set. Unlabelled
    images are for training only, so those that are also in val or test are left out too. Where whole classes are
    drawn, an image whose twin belongs to a class of val or test is left out of what comes before that.

    Args:
        entry: the data set.
        catalogue: one row per image with `id`, `part`, `label` (-1: unlabelled), `sha256` (of the pixels).

    Returns:
        The catalogue with `group` ("" for an image without a twin) and `split`.

    Raises:
        UserError: a class has too few distinct images for its split, or there are too few classes.
    """
    split = _of_classes(entry, catalogue) if entry.split.rule == "classes" else _within_classes(entry, catalogue)
    hashes = catalogue["sha256"]
    group = catalogue["id"].groupby(hashes).transform("first").where(hashes.duplicated(keep=False), "")
    return catalogue.assign(group=group, split=split)


def _of_classes(entry: Dataset, catalogue: pd.DataFrame) -> pd.Series:
    """Whole classes.

    The draw depends on the seed and the number of classes alone, not on the data set's name: data sets of the same
    classes in other styles share the split, so that a domain may change without a test class having been trained on.
    """
    classes = numpy_generator(entry.split.seed, "split", "classes").permutation(entry.classes)
    test, val = (max(1, round((share or 0.0) * entry.classes)) for share in (entry.split.test, entry.split.val))
    if test + val >= entry.classes:
        raise UserError(f"{entry.name}: {entry.classes} classes are too few for its split")
    place = np.zeros(entry.classes, np.int64)  # 0 train, 1 val, 2 test
    place[classes[:test]], place[classes[test : test + val]] = 2, 1
    labels = catalogue["label"]
    places = pd.Series(np.where(labels >= 0, place[labels], 0), catalogue.index)
    last = places.groupby(catalogue["sha256"]).transform("max")
    return places.map(dict(enumerate(("train", "val", "test")))).where(places == last, LEFT_OUT)


def _within_classes(entry: Dataset, catalogue: pd.DataFrame) -> pd.Series:
    """Images of each class."""
    hashes, labels = catalogue["sha256"], catalogue["label"]
    published = catalogue["part"] == "test"
    leaking = ~published & hashes.isin(hashes[published])
    drawn = _draw(entry, catalogue[~published & ~leaking & (labels >= 0)])
    split = hashes.map(drawn).fillna("train")
    split[published] = "test"
    split[leaking | ((labels < 0) & (split != "train"))] = LEFT_OUT
    return split


def _draw(entry: Dataset, pool: pd.DataFrame) -> dict[str, str]:
    """Images (by their hash) of the labelled pool that become val or test."""
    rng = numpy_generator(entry.split.seed, "split", entry.name)
    distinct_images = ~pool["sha256"].duplicated(keep=False)
    drawn: dict[str, str] = {}
    for label, images in pool.groupby("label"):
        test = 0 if entry.split.test is None else max(1, round(entry.split.test * len(images)))
        val = max(1, round(entry.split.val * len(images)))
        distinct = images.loc[distinct_images[images.index], "sha256"].to_numpy()
        if len(distinct) < test + val or len(images) == test + val:
            raise UserError(f"{entry.name}: class {label} has too few distinct images ({len(distinct)}) for its split")
        chosen = rng.permutation(distinct)[: test + val]
        drawn |= dict.fromkeys(chosen[:test].tolist(), "test") | dict.fromkeys(chosen[test:].tolist(), "val")
    return drawn
