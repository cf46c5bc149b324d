"""What a test image changes: no interval may be narrower than the images allow."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Items = NDArray[np.float64]


def resolution(unit: str, split: str, items: Items, card: Mapping[str, Any]) -> float:
    """What one test image changes: a share of 100 % for an accuracy, unknown (0) for σ.

    Episodes and tasks are drawn from the split again and again, so its images count, as many as the data card says;
    without a card the items do.
    """
    images = sum(card.get("counts", {}).get(split, {}).values()) or len(items)
    return 100 / images if unit == "%" else 0.0
