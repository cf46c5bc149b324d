"""What each test item adds to a score, from `outcomes.npz`: no interval may be narrower than the items allow."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Items = NDArray[np.float64]
GAP_COLUMNS = {"accuracy": (1.0, 0.0), "accuracy_reference": (0.0, 1.0), "accuracy_gap": (-1.0, 1.0)}


def is_sum(metric: str) -> bool:
    """Whether a metric adds up what its mean averages; over how many images is not written down."""
    return metric.endswith("_sum")


def per_item(protocol: str, metric: str, unit: str, value: float, outcomes: NDArray[Any]) -> Items:
    """What each item adds to a score [m], in the unit of the score, whose value is their mean.

    Args:
        protocol: of the score, as are `metric`, `unit` and `value`.
        metric: a `…_sum` adds up what its mean averages.
        unit: `%` is that of a share.
        value: the score itself.
        outcomes: right or wrong [m] or, per draw of labels, [draws, m]; accuracy of each episode [m]; σ of each task
            [m]; accuracies of the frozen and the fine-tuned encoder on each task [m, 2].

    Raises:
        ValueError: the outcomes have another shape, are no finite numbers, or their mean is not `value`.
    """
    if outcomes.dtype.kind not in "biuf":
        raise ValueError(f"outcomes of {protocol} are of the type {outcomes.dtype}")
    found = np.asarray(outcomes, dtype=np.float64)
    if protocol.startswith("gap/"):
        found = found @ np.array(GAP_COLUMNS[metric])
    elif found.ndim == 2:
        found = found.mean(0)
    if found.ndim != 1 or found.size == 0:
        raise ValueError(f"outcomes of {protocol} have the shape {list(outcomes.shape)}")
    if is_sum(metric):
        return found * (value / found.mean() if found.mean() else 1.0)
    scaled = found * 100 if unit == "%" else found
    _require_same(protocol, metric, value, float(scaled.mean()))
    return scaled


def _require_same(protocol: str, metric: str, value: float, found: float) -> None:
    # a score that is not finite is shown as lost; in float32 a sum of thousands is off by 1e-6
    if math.isfinite(value) and not math.isclose(value, found, rel_tol=1e-5, abs_tol=1e-9):
        raise ValueError(f"{protocol}: {metric} is {value:.6g}, but its outcomes give {found:.6g}")


def resolution(unit: str, split: str, items: Items, card: Mapping[str, Any]) -> float:
    """What one test image changes: a share of 100 % for an accuracy, unknown (0) for σ.

    Episodes and tasks are drawn from the split again and again, so its images count, as many as the data card says;
    without a card the items do.
    """
    images = sum(card.get("counts", {}).get(split, {}).values()) or len(items)
    return 100 / images if unit == "%" else 0.0
