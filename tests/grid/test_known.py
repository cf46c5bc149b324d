"""`gessl list`: every name that an experiment can have, each with what it is, and no torch where none is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from gessl.cli import main
from gessl.data.registry import dataset, dataset_names
from gessl.encoders import encoder_names
from gessl.grid.policies import policy_names
from gessl.methods import method_names
from gessl.nets.backbones import BACKBONES
from gessl.protocols import protocol_names

NAMES = {
    "methods": method_names,
    "protocols": protocol_names,
    "datasets": dataset_names,
    "views": policy_names,
    "backbones": lambda: list(BACKBONES),
    "encoders": encoder_names,
}


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    assert main(["list", *words]) == 0
    return [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("kind", NAMES)
def test_every_name_is_there_with_what_it_is(kind: str, unprepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(capsys, kind)
    assert [name for name, _ in found] == NAMES[kind]()
    for _, text in found:
        assert len(text) > 3 and not any(word in text for word in ("cannot be read", "not what it must be", ".yaml:"))


def test_what_they_are_stands_in_their_files(unprepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = dict(pair for kind in NAMES for pair in lines(capsys, kind))
    assert every["simclr"] == "SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709)."
    assert every["knn/dino-v1"] == "Weighted k-nearest neighbours for several k, as DINO's code has them."
    assert every["cifar10"] == dataset("cifar10").title
    assert every["digits-mae"] == "1 view: whole image"
    assert every["imagenet-multicrop-swav"].startswith("2 views: crop, jitter, gray, blur, flip; 6 views of 96 pixels")
    assert every["resnet50"] == "2048 features, 24 million weights, maps; images of any number of pixels"
    assert every["conv5"].endswith("; images of 32 or more pixels")
    assert every["resnet50-vicreg"] == "ResNet-50, VICReg on ImageNet, 1000 epochs"


def test_without_a_kind_it_counts_them(unprepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {name: int(count) for name, count in lines(capsys)} == {kind: len(names()) for kind, names in NAMES.items()}


def test_an_unknown_kind_is_one_line(unprepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "metods"]) == 2
    assert capsys.readouterr().err == "gessl: list: no kind 'metods'; did you mean 'methods'?\n"


def test_a_file_that_is_wrong_is_said_on_its_line(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config/views/digits.yaml").write_text("views: 3\n", encoding="utf-8")
    Path("config/datasets/digits.yaml").write_text("title: [\n", encoding="utf-8")
    assert dict(lines(capsys, "views"))["digits"].startswith("config/views/digits.yaml is not what it must be; ")
    assert dict(lines(capsys, "datasets"))["digits"].startswith("config/datasets/digits.yaml:")


@pytest.mark.parametrize("words", [[], *([kind] for kind in NAMES if kind != "backbones")])
def test_no_torch_is_imported_for_names(words: list[str], unprepared: Path) -> None:
    code = f"import sys; from gessl.cli import main; main(['list', *{words!r}]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
