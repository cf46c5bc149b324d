"""What decides how long a step of a run takes: runs that agree in it cost alike, whatever their numbers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gessl.files import as_json, canonical_json
from gessl.identity import without_added
from gessl.training.settings import Science

# these parts of a run's science, of its `train`, and of its `gessl`, less `NUMBERS`
DECIDES = ("dataset", "backbone", "views", "method_name", "method")
DECIDES_TRAIN = ("batch", "optimizer", "precision")
NUMBERS = {
    *("inner_lr", "inner_momentum", "temperature", "divergence", "kl_weight", "kl_scale", "ssl_weight"),
    *("radius", "damping", "momentum", "beta2", "eta", "clip_lr"),
}


def alike(config: Mapping[str, Any]) -> str:
    """A key that runs share which cost as much a step; `config` is their science as records hold it."""
    config = without_added(config)
    train = {key: config["train"][key] for key in DECIDES_TRAIN}
    loops = _without_numbers({"train": train, "gessl": config["gessl"]})
    return canonical_json({key: config[key] for key in DECIDES} | loops)


def described(science: Science) -> dict[str, Any]:
    """The science as records hold it."""
    found: dict[str, Any] = as_json(dataclasses.asdict(science))
    return found


def _without_numbers(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    return {key: _without_numbers(value) for key, value in part.items() if key not in NUMBERS}
