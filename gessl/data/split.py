"""Train, val and test: drawn once per data set, never tearing equal images apart."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gessl.data.registry import SPLITS, Dataset
from gessl.errors import UserError
from gessl.rng import numpy_generator

COLUMNS = ["id", "part", "label", "class", "group", "sha256", "look"]
LEFT_OUT = ""  # split of images that must not be trained on, because they are also in val or test


def catalogue_of(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    """All images of a data set, a row with `COLUMNS` for each; the look (`gessl.data.looks`) is uint64."""
    return pd.DataFrame(rows, columns=COLUMNS).astype({"look": np.uint64})


def draw_split(entry: Dataset, catalogue: pd.DataFrame) -> pd.DataFrame:
    """Decide the split of every image.

    Equal images (same pixels) that have no group share one, named after the first of them, and stay in train, so that
    what is drawn for val and test is distinct. Where the test set is published it stays as it is: a training image that
    is also in it is left out (split ""), since training on it would leak and moving it would change the test set.
    Unlabelled images are for training only, so those that are also in val or test are left out too. Where whole classes
    or groups are drawn, or the parts are kept, an image whose twin is in val or test is left out of what comes before
    that.

    Args:
        entry: the data set.
        catalogue: one row per image with `id`, `part`, `label` (-1: unlabelled), `class` (its name), `group` ("" for
            none), `sha256` (of the pixels).

    Returns:
        The catalogue with `group` ("" for an image without a group or a twin) and `split`.

    Raises:
        UserError: a class has too few distinct images for its split, or there are too few classes or groups.
    """
    rule, hashes = entry.split.rule, catalogue["sha256"]
    if rule in _PLACES:
        places = pd.Series(_PLACES[rule](entry, catalogue), catalogue.index)
        split = places.map(dict(enumerate(SPLITS))).where(places == places.groupby(hashes).transform("max"), LEFT_OUT)
    else:
        split = _within_classes(entry, catalogue)
    twins = catalogue["id"].groupby(hashes).transform("first").where(hashes.duplicated(keep=False), "")
    return catalogue.assign(group=catalogue["group"].where(catalogue["group"] != "", twins), split=split)


def _of_classes(entry: Dataset, catalogue: pd.DataFrame) -> NDArray[np.int64]:
    """Places in `SPLITS`: whole classes.

    The draw depends on the seed and the number of classes alone, not on the data set's name: data sets of the same
    classes in other styles share the split, so that a domain may change without a test class having been trained on.
    """
    classes = numpy_generator(entry.split.seed, "split", "classes").permutation(entry.classes)
    test, val = (max(1, round((share or 0.0) * entry.classes)) for share in (entry.split.test, entry.split.val))
    if test + val >= entry.classes:
        raise UserError(f"{entry.name}: {entry.classes} classes are too few for its split")
    place = np.zeros(entry.classes, np.int64)
    place[classes[:test]], place[classes[test : test + val]] = 2, 1
    labels = catalogue["label"].to_numpy()
    return np.where(labels >= 0, place[labels], 0)


def _of_groups(entry: Dataset, catalogue: pd.DataFrame) -> NDArray[np.int64]:
    """Places in `SPLITS`: whole groups, until test and val have their shares of the labelled images, or more.

    An image without a group is one of its own. Unlabelled images go with their group.
    """
    groups = catalogue["group"].where(catalogue["group"] != "", catalogue["id"])
    images = groups[catalogue["label"] >= 0].value_counts().sort_index()
    drawn = numpy_generator(entry.split.seed, "split", entry.name, "groups").permutation(len(images))
    before = np.cumsum(images.to_numpy()[drawn]) - images.to_numpy()[drawn]  # images in the groups that came earlier
    test, val = (share * int(images.sum()) for share in (entry.split.test or 0.0, entry.split.val or 0.0))
    place = np.where(before < test, 2, 0)
    rest = np.flatnonzero(place == 0)
    place[rest[before[rest] < before[rest[:1]].sum() + val]] = 1
    if set(place.tolist()) != {0, 1, 2}:
        raise UserError(
            f"{entry.name}: {len(images)} groups are too few for its split; lower val or test, or give more"
        )
    chosen = dict(zip(images.index[drawn], place.tolist(), strict=True))
    return groups.map(chosen).fillna(0).to_numpy(np.int64)


def _as_given(entry: Dataset, catalogue: pd.DataFrame) -> NDArray[np.int64]:
    """Places in `SPLITS`: those of the parts; unlabelled images are trained on."""
    return catalogue["part"].map({part: place for place, part in enumerate(SPLITS)} | {"unlabelled": 0}).to_numpy()


def _as_novel(entry: Dataset, catalogue: pd.DataFrame) -> NDArray[np.int64]:
    """Those of the parts, of which no two may share a class."""
    torn = catalogue[catalogue["label"] >= 0].groupby("class")["part"].nunique() > 1
    if torn.any():
        raise UserError(
            f"{entry.name}: class {torn.idxmax()} is in two parts; correct the lists, or take the split rule given"
        )
    return _as_given(entry, catalogue)


def _as_runs(entry: Dataset, catalogue: pd.DataFrame) -> NDArray[np.int64]:
    """Those of the parts; each class is in one group, with images of train and of test."""
    classes = catalogue.groupby("class").agg({"group": "unique", "part": set})
    for name, (groups, parts) in classes.iterrows():
        if len(groups) != 1 or not groups[0] or parts != {"train", "test"}:
            raise UserError(
                f"{entry.name}: class {name} must be in one run, in train and in test; correct the data, or take the"
                " split rule given"
            )
    return _as_given(entry, catalogue)


_PLACES = {
    "classes": _of_classes,
    "groups": _of_groups,
    "given": _as_given,
    "novel": _as_novel,
    "runs": _as_runs,
}


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
    for _, images in pool.groupby("label"):
        test = 0 if entry.split.test is None else max(1, round(entry.split.test * len(images)))
        val = max(1, round((entry.split.val or 0.0) * len(images)))
        distinct = images.loc[distinct_images[images.index], "sha256"].to_numpy()
        if len(distinct) < test + val or len(images) == test + val:
            raise UserError(
                f"{entry.name}: class {images['class'].iloc[0]!r} has too few distinct images ({len(distinct)} of"
                f" {len(images)}): val and test take {test + val}, and one has to be left to train on; add some, leave"
                " the class out, or lower the shares of the split"
            )
        chosen = rng.permutation(distinct)[: test + val]
        drawn |= dict.fromkeys(chosen[:test].tolist(), "test") | dict.fromkeys(chosen[test:].tolist(), "val")
    return drawn
