"""Which images of one part of a data set are also in another, or look like one there; and so for two data sets.

`prepare` counts them within a data set, into a file of its own: the card is read by training, which none of it changes.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gessl.data.arrays import damaged, finished, read_index
from gessl.data.looks import WITHIN, nearest
from gessl.data.registry import SPLITS
from gessl.files import read_json
from gessl.layout import data_dir
from gessl.npz import DAMAGE, map_npy

LOOKS, OVERLAP = "looks.npy", "overlap.json"
EXAMPLES = 5  # that are named


def overlap_of(index: pd.DataFrame, left_out: int) -> dict[str, Any]:
    """What `overlap.json` holds (docs/formats.md).

    Args:
        index: one row per image with `id`, `split`, `sha256` and `look`.
        left_out: images that were left out, since they are also in a part that comes later.
    """
    splits = {split: index[index["split"] == split] for split in SPLITS}
    pairs = [(of, among) for among, of in combinations(SPLITS, 2) if len(splits[of]) and len(splits[among])]
    return {"left_out": left_out, "within": WITHIN, "pairs": [_pair(splits, *pair) for pair in pairs]}


def _pair(splits: dict[str, pd.DataFrame], of: str, among: str) -> dict[str, Any]:
    ours, theirs = splits[of], splits[among]
    place, bits = nearest(ours["look"].to_numpy(), theirs["look"].to_numpy())
    closest = [row for row in np.argsort(bits, kind="stable")[:EXAMPLES].tolist() if place[row] >= 0]
    return {
        "of": of,
        "among": among,
        "images": len(ours),
        "same": int(ours["sha256"].isin(theirs["sha256"]).sum()),
        "alike": int((place >= 0).sum()),
        "examples": [
            {"id": ours["id"].iloc[row], "other": theirs["id"].iloc[place[row]], "bits": int(bits[row])}
            for row in closest
        ],
    }


def read_overlap(dataset: str) -> dict[str, Any] | None:
    """What `prepare` found; None for a data set that is not prepared, or was before it looked for this.

    Raises:
        UserError: the file is damaged.
    """
    path = data_dir(dataset) / OVERLAP
    if not path.is_file():
        return None
    try:
        found = read_json(path)
        if not isinstance(found, dict) or not {"left_out", "pairs"} <= found.keys():
            raise ValueError("not what `gessl prepare` wrote")
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None
    return found


def described(overlap: dict[str, Any]) -> Iterator[str]:
    """The same in words, a line for each pair of parts."""
    if overlap["left_out"]:
        yield f"{overlap['left_out']} images left out, whose pixels are in another part, too"
    for pair in overlap["pairs"]:
        named = [f"{one['id']} ({one['other']})" for one in pair["examples"]]
        such = f", such as {', '.join(named)}" if named else ""
        yield (
            f"of {pair['images']} {pair['of']} images, {pair['same']} are in {pair['among']}, too, and {pair['alike']}"
            f" look like one there{such}"
        )


class Contamination(NamedTuple):
    """Which images of a target's part are among those that an encoder was trained on.

    Attributes:
        positions: of the images of the part, `[n]`.
        same: whether one of the same content hash is, bool `[n]`.
        alike: whether one that looks like it is, bool `[n]`; None where a data set has no looks.
    """

    positions: NDArray[np.int64]
    same: NDArray[np.bool_]
    alike: NDArray[np.bool_] | None


def contamination(trained_on: str, target: str, split: str = "test") -> Contamination:
    """Hold the train split of one prepared data set against a part of another one, or of itself.

    Content hashes find only what both keep in the same form: pixels of one size, or the same files. Looks find pictures
    whatever their size; on small drawings they find too many (`gessl.data.looks`).

    Raises:
        UserError: one of the data sets is not prepared, or a file of it is damaged.
    """
    ours, theirs = read_index(target, "split", "sha256"), read_index(trained_on, "split", "sha256")
    rows, trained = np.flatnonzero(ours["split"] == split), theirs["split"] == "train"
    same = np.isin(ours["sha256"][rows], theirs["sha256"][trained])
    looks, others = _looks(target, len(ours["split"])), _looks(trained_on, len(trained))
    if looks is None or others is None:
        return Contamination(rows, same, None)
    place, _ = nearest(looks[rows], others[trained])
    return Contamination(rows, same, place >= 0)


def _looks(dataset: str, images: int) -> NDArray[np.uint64] | None:
    path = finished(dataset) / LOOKS
    if not path.is_file():
        return None
    try:
        looks: NDArray[np.uint64] = map_npy(path)
        if looks.dtype != np.uint64 or looks.shape != (images,):
            raise ValueError(f"expected uint64 [{images}], found {looks.dtype} {list(looks.shape)}")
    except DAMAGE as error:
        raise damaged(path, error) from None
    return looks
