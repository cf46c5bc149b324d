"""Files of weights: what fits is taken; what is damaged, hostile, or of another network is refused in one line."""

import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gessl.encoders import encoder, load
from gessl.encoders import weights as weights_module
from gessl.errors import UserError
from tests.encoders.conftest import Make, gives, headless, junk, prefixed, resnet18


def test_a_file_of_before_batches_were_counted_fits(make: Make) -> None:
    model = resnet18()
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert gives(make(state), headless(model))


def test_a_file_in_torchs_old_format_is_read(make: Make, tmp_path: Path) -> None:
    model = resnet18()
    torch.save(model.state_dict(), tmp_path / "old", _use_new_zipfile_serialization=False)
    assert gives(make((tmp_path / "old").read_bytes()), headless(model))


def without(state: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name != key}


def with_one(key: str, change: Callable[[Tensor], Any]) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: {**state, key: change(state[key])}


UNFIT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "one is missing": (lambda state: without(state, "conv1.weight"), r"1 missing \(conv1\.weight\)$"),
    "one too many": (lambda state: {**state, **junk("extra")}, r"1 unexpected \(extra"),
    "others": (
        lambda state: prefixed(state, "net."),
        r"100 missing \(conv1\.weight, .*, …\), 122 unexpected \(net\.conv1",
    ),
    "a shape": (with_one("conv1.weight", lambda _: torch.ones(64, 1, 7, 7)), r"is \[64, 1, 7, 7\], needs \[64, 3, 7,"),
    "not finite": (with_one("conv1.weight", lambda value: value * torch.nan), "not finite.*conv1.weight"),
    "whole numbers": (with_one("conv1.weight", lambda value: value.long()), "not finite.*conv1.weight"),
    "no tensor": (with_one("conv1.weight", lambda _: 3), "conv1.weight are no tensors"),
    "nested": (lambda state: {"state_dict": state}, "state_dict are no tensors"),
    "empty": (lambda _: {}, "it is empty"),
    "a list": (lambda state: list(state.values()), "holds no state dict but list"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_named(make: Make, case: str) -> None:
    change, words = UNFIT[case]
    entry = encoder(make(change(resnet18().state_dict())))
    with pytest.raises(UserError, match=words) as error:
        load(entry)
    assert "\n" not in str(error.value) and "weights.pth" in str(error.value)


class Trap:
    """What opens it makes a file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch trapped",)


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_would_execute_is_refused(make: Make, tmp_path: Path, new: bool) -> None:
    torch.save({"state_dict": Trap()}, tmp_path / "trap", _use_new_zipfile_serialization=new)
    with pytest.raises(UserError, match=r"would run code .*system") as error:
        load(encoder(make((tmp_path / "trap").read_bytes())))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99999])
def test_a_truncated_file_is_refused(make: Make, tmp_path: Path, suffix: str, share: float) -> None:
    make(resnet18().state_dict(), suffix=suffix)
    whole = (tmp_path / f"data/encoders/weights{suffix}").read_bytes()
    with pytest.raises(UserError, match=r"damaged, or no weights file") as error:
        load(encoder(make(whole[: int(share * len(whole))], suffix=suffix)))
    assert "\n" not in str(error.value)


def test_another_file_is_refused_before_it_is_read(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = encoder(make(resnet18().state_dict()))
    (tmp_path / entry.file).write_bytes(b"other")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(UserError, match=f"sha256 is {hashlib.sha256(b'other').hexdigest()}, but encoder elsewhere is"):
        load(entry)


def test_a_missing_file_says_where_to_get_it(make: Make, tmp_path: Path) -> None:
    entry = encoder(make(resnet18().state_dict()))
    (tmp_path / entry.file).unlink()
    with pytest.raises(UserError, match=r"no such file; get it from https://example\.org/weights"):
        load(entry)
    os.mkfifo(tmp_path / entry.file)
    with pytest.raises(UserError, match="not a plain file"):
        load(entry)


def test_a_huge_file_is_refused_unread(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = encoder(make(resnet18().state_dict()))
    with open(tmp_path / entry.file, "r+b") as file:
        file.truncate(1 << 40)  # all holes
    with pytest.raises(UserError, match="too large"):
        load(entry)
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    monkeypatch.setattr(weights_module, "BYTES", 1 << 19)
    with pytest.raises(UserError, match="unpacks to 1048576 bytes"):
        load(encoder(make((tmp_path / "bomb").read_bytes())))
