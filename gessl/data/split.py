"""Train, val and test: drawn once per data set, per class, never tearing equal images apart."""

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
    images are for training only, so those that are also in val or test are left out too.

    Args:
        entry: the data set.
        catalogue: one row per image with `id`, `part`, `label` (-1: unlabelled), `sha256` (of the pixels).

    Returns:
        The catalogue with `group` ("" for an image without a twin) and `split`.

    Raises:
        UserError: a class has too few distinct images for its split.
    """
    hashes, labels = catalogue["sha256"], catalogue["label"]
    published = catalogue["part"] == "test"
    leaking = ~published & hashes.isin(hashes[published])
    drawn = _draw(entry, catalogue[~published & ~leaking & (labels >= 0)])
    split = hashes.map(drawn).fillna("train")
    split[published] = "test"
    split[leaking | ((labels < 0) & (split != "train"))] = LEFT_OUT
    twins = hashes.duplicated(keep=False)
    group = catalogue["id"].groupby(hashes).transform("first").where(twins, "")
    return catalogue.assign(group=group, split=split)


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
