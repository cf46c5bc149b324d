"""Entries of encoders: what is wrong is said with its line; the hash is of what the features depend on."""

import json
from typing import Any

import pytest

from gessl.encoders import Entry, content_hash, encoder, encoder_names
from gessl.errors import UserError
from gessl.typed import TypedError
from tests.encoders.conftest import RESNET, Make, resnet18


def test_the_hash_is_of_what_features_depend_on(make: Make) -> None:
    state = resnet18().state_dict()
    first = encoder(make(state))
    assert content_hash(encoder(make(state, title="Another", licence="none"))) == content_hash(first)
    other = {**RESNET, "name": "resnet34"}
    changes: list[dict[str, Any]] = [{"size": [64, 64]}, {"mean": [0, 0, 0]}, {"model": other}, {"sha256": "0" * 64}]
    hashes = {content_hash(encoder(make(state, **change))) for change in changes}
    assert len(hashes | {content_hash(first)}) == 5


@pytest.mark.parametrize("model", [RESNET, {"kind": "timm", "name": "resnet18"}, {
    "kind": "state_dict", "backbone": {"kind": "own", "name": "small-conv"}, "layout": "solo-learn", "drop": ["x."],
}])  # fmt: skip
def test_an_entry_comes_back_from_json_values(make: Make, model: dict[str, Any]) -> None:
    entry = encoder(make({}, model=model))
    values = json.loads(json.dumps(entry.plain))
    assert Entry.of_plain(values) == entry
    assert values["model"]["kind"] == model["kind"]
    for wrong in ({**values, "size": [32]}, {**values, "colour": 1}, {"name": "x"}, [], {**values, "model": {}}):
        with pytest.raises(TypedError):
            Entry.of_plain(wrong)


def test_an_unknown_encoder_names_the_nearest(make: Make) -> None:
    assert encoder_names() == []
    with pytest.raises(UserError, match=r"there is none; docs/encoders\.md"):
        encoder("elsewhere")
    make({})
    assert encoder_names() == ["elsewhere"]
    with pytest.raises(UserError, match="no encoder 'elsewere'; did you mean 'elsewhere'"):
        encoder("elsewere")


STATE = {"kind": "state_dict", "backbone": RESNET}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"sha256": "abc"}, "sha256: must be 64 lower-case hex"),
    ({"sha256": None}, "missing sha256"),
    ({"file": "/etc/weights.pth"}, "file: must be a path below data/encoders"),
    ({"file": "data/../../weights.pth"}, "file: must be a path below data/encoders"),
    ({"file": "data/weights.bin"}, "file: must be a path below data/encoders that ends in .safetensors"),
    ({"size": [32]}, "size: must be .height, width"),
    ({"size": 32}, "size: must be a list"),
    ({"mean": [0.5]}, "mean: must be a list of 3"),
    ({"std": [0, 1, 1]}, "std: must be a number, above 0"),
    ({"channels": 2}, "channels: must be 1 or 3"),
    ({"channels": 1, "mean": [0.5], "std": [0.5]}, "channels: must be 3"),
    ({"licence": ""}, "licence: must be text"),
    ({"titel": "x"}, "titel: unknown key; did you mean 'title'"),
    ({"model": {"name": "resnet18"}}, "kind: must be one of torchvision, timm, state_dict, got None"),
    ({"model": {"kind": ["timm"]}}, "kind: must be one of"),
    ({"model": "resnet18"}, "model: must be a mapping"),
    ({"model": {"kind": "timm", "name": "hf-hub:some/where"}}, "name: must be a model's name, no address"),
    ({"model": {**RESNET, "name": "vgg11", "stem": "cifar"}}, "stem: goes with ResNets"),
    ({"model": {**STATE, "layout": "solo"}}, "layout: no layout 'solo'; did you mean 'solo-learn'"),
    ({"model": {**STATE, "backbone": {"kind": "own", "name": "resnet5"}}}, "did you mean 'resnet50'"),
    ({"model": {**STATE, "backbone": "resnet18"}}, "backbone: must be a mapping"),
    ({"model": {**STATE, "drop": [1]}}, "drop: must be a list of texts"),
    ({"model": {**STATE, "nested": 3}}, "nested: must be text"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[words[:40] for _, words in WRONG])
def test_a_wrong_entry_is_refused_with_its_line(make: Make, changes: dict[str, Any], words: str) -> None:
    make({}, **changes)
    with pytest.raises(UserError, match=words) as error:
        encoder("elsewhere")
    assert "config/encoders/elsewhere.yaml" in str(error.value)
