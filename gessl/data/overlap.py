"""Which images of one part of a data set are also in another, or look like one there.

`prepare` counts them, into a file of its own: the card is read by training, which none of it changes.
`gessl.data.contamination` holds two data sets against each other.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from gessl.data.arrays import damaged
from gessl.data.looks import WITHIN, nearest
from gessl.data.registry import SPLITS
from gessl.files import read_json
from gessl.layout import data_dir

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
