"""Mistakes in a plug-in's file, class or yaml stop `gessl check` and `gessl plan` with one line, before any run."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

import gessl.methods
from gessl.cli import main
from gessl.cluster.failed import read_failure
from gessl.errors import UserError
from gessl.grid.experiment import Experiment
from gessl.methods import method_class_at
from gessl.methods.simclr import SimCLR
from tests.conftest import ROOT, SMALL

SOUND = '''
"""Alignment with a spread term."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from gessl.methods.base import Method


@dataclass(frozen=True)
class Spread(Method):
    """Views agree, features keep their variance."""

    dim: int = 32
    weight: float = 0.5

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": nn.Linear(features, self.dim)}

    def loss(self, outputs, targets):
        z = outputs["z"]
        return (z[0] - z[1]).square().mean() - self.weight * (z.var(1) + 1e-4).sqrt().mean()
'''
VALUES = "dim: 32\nweight: 0.5\n"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose only method is `spread`; its file and its yaml lie in `own/` and `config/methods/`."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "data/raw").mkdir(parents=True)
    shutil.copy(ROOT / "data/raw/digits.dvc", tmp_path / "data/raw")
    (tmp_path / "config/config.yaml").write_text(yaml.safe_dump(SMALL | {"methods": {"spread": {}}}), encoding="utf-8")
    (tmp_path / "config/methods/spread.yaml").write_text(VALUES, encoding="utf-8")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/spread.py").write_text(SOUND, encoding="utf-8")
    monkeypatch.setattr(gessl.methods, "__path__", [*gessl.methods.__path__, str(tmp_path / "own")])
    monkeypatch.delitem(sys.modules, "gessl.methods.spread", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("gessl.methods.spread", None)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line with which a verb refuses."""
    capsys.readouterr()
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_sound_method_is_accepted(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert capsys.readouterr().out.startswith("digits-spread-s0-")


def test_what_methods_share_is_no_method(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = SOUND.replace("@dataclass(frozen=True)\nclass Spread", "class Shared").replace("    dim: int = 32\n", "")
    (plugin / "own/_shared.py").write_text(shared, encoding="utf-8")
    own = """
from dataclasses import dataclass
from gessl.methods._shared import Shared

@dataclass(frozen=True)
class Spread(Shared):
    dim: int = 32
    weight: float = 0.5
"""
    (plugin / "own/spread.py").write_text(own, encoding="utf-8")
    assert main(["check"]) == 0
    assert "_shared" not in gessl.methods.method_names()
    assert "unknown method '_shared'" in told(capsys, "check", "--method", "_shared")
    sys.modules.pop("gessl.methods._shared")


LOSS, HEADS = "    def loss(self, outputs, targets):", 'return {"projector": nn.Linear(features, self.dim)}'
FILES = {
    "syntax": ("z = outputs", "z == = outputs", "does not import: SyntaxError: invalid syntax (", "line 2"),
    "missing module": ("import ClassVar", "import ClassVar\nimport no_such_thing", "does not import: ModuleNotF"),
    "missing name": ("import ClassVar", "import ClasVar", "does not import: ImportError: cannot import name 'ClasVar'"),
    "raises": ("from torch", "1 / 0\nfrom torch", "does not import: ZeroDivisionError: division by zero (", "line 7)"),
    "exits": ("from torch", "import sys; sys.exit(0)\nfrom torch", "does not import: SystemExit: 0"),
    "thawed": ("(frozen=True)", "", "does not import: TypeError: cannot inherit non-frozen dataclass from a froz"),
    "no dataclass": ("@dataclass(frozen=True)\n", "", "class Spread: is no dataclass", "write @dataclass(frozen=True)"),
    "no method": ("Spread(Method)", "Spread", "defines no method (classes: Spread); derive one from gessl.methods"),
    "nothing": (SOUND, "", "defines no method (classes: none)"),
    "two": (SOUND, SOUND + SOUND.replace("Spread", "Other"), "defines 2 methods (Spread, Other); give each its own"),
    "no loss": (LOSS, "    def los(self, outputs, targets):", "class Spread: must define loss(outputs, targets)"),
    "no heads": ("def heads(", "def head(", "class Spread: must define heads(features)"),
    "short loss": ("(self, outputs, targets)", "(self, outputs)", "class Spread: loss must take (outputs, targets)"),
    "long heads": ("features: int", "features: int, more: int", "class Spread: heads must take (features)"),
    "hides": ("weight: float", "views: int = 3\n    weight: float", "'views' hides Method.views; annotate it"),
    "source": ("dim: int", 'source: ClassVar[str] = "teacher"\n    dim: int', "source = 'teacher'; give one of none,"),
    "views": ("dim: int", "views: ClassVar[int] = 2\n    dim: int", "views = 2; give the least and the most that it"),
    "no type": ("weight: float = 0.5", "weight = 0.5", "weight = 0.5 is no hyper-parameter without its type"),
    "tensor": ("weight: float = 0.5", "weight: Tensor = None", "'weight' is a <class 'torch.Tensor'>; a yaml gives"),
    "recipe": ("weight: float", "recipe: int = 3\n    weight: float", "no hyper-parameter can be called 'recipe'"),
    "a list": (HEADS, "return [nn.Linear(features, self.dim)]", "heads must return a mapping of names to modules"),
    "projector": (HEADS, 'return {"head": nn.Linear(features, 3)}', "heads gives no 'projector' (but 'head')"),
    "no module": (HEADS, 'return {"projector": lambda h: h}', "heads must return modules, but 'projector' is a"),
    "encoder": (HEADS, 'return {"projector": nn.Identity(), "encoder": nn.Identity()}', "a module the name 'encoder'"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", FILES)
@pytest.mark.parametrize("verb", ["check", "plan"])
def test_a_mistake_in_the_file_is_one_line(
    mistake: str, verb: str, plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right, wrong, *words = FILES[mistake]
    assert right in SOUND
    (plugin / "own/spread.py").write_text(SOUND.replace(right, wrong, 1), encoding="utf-8")
    if mistake == "hides":
        (plugin / "config/methods/spread.yaml").write_text(VALUES + "views: 3\n", encoding="utf-8")
    line = told(capsys, *(["check"] if verb == "check" else ["plan", "config/config.yaml"]))
    assert "method 'spread': " in line
    assert all(word in line for word in words), line


YAMLS = {
    "lacks": ("dim: 32\n", "method 'spread': config/methods/spread.yaml gives no value for weight; add it"),
    "unknown": (
        VALUES + "wieght: 1.0\n",
        "config/methods/spread.yaml",
        "unknown key 'wieght'",
        "did you mean 'weight'",
    ),
    "wrong type": ("dim: wide\nweight: 0.5\n", "config/methods/spread.yaml", "dim"),
}


@pytest.mark.parametrize("mistake", YAMLS)
def test_a_mistake_in_the_yaml_is_one_line(mistake: str, plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, *words = YAMLS[mistake]
    (plugin / "config/methods/spread.yaml").write_text(text, encoding="utf-8")
    line = told(capsys, "check")
    assert all(word in line for word in words), line


def test_a_method_without_yaml_is_one_line(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (plugin / "config/methods/spread.yaml").unlink()
    line = told(capsys, "check")
    assert "method 'spread': there is no config/methods/spread.yaml; write it, with a value for dim, weight" in line


@pytest.mark.parametrize(
    ("name", "word"),
    [("Spread", "rename it to lower-case letters"), ("my-spread", "rename it to lower-case"), ("simclr", "two files")],
)  # fmt: skip
def test_a_file_with_a_wrong_name_is_one_line(
    name: str, word: str, plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plugin / "own/spread.py").rename(plugin / f"own/{name}.py")
    config = SMALL | {"methods": {name: {}}}
    (plugin / "config/config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    line = told(capsys, "check")
    assert f"method '{name}': " in line
    assert word in line


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("no_such_package.it:Mine", "no_such_package.it does not import: ModuleNotFoundError"),
        ("own.spread:Sprad", "own.spread has no class Sprad that derives from gessl.methods.base.Method"),
        ("own.spread:", "must read package.module:Class"),
        ("own/spread.py:Spread", "must read package.module:Class"),
    ],
)
def test_a_place_that_holds_no_method_is_one_line(
    place: str, complaint: str, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(plugin)
    for name in ("own", "own.spread"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(UserError, match=f"method '{place}': .*{complaint}"):
        method_class_at(place)


def test_a_stop_gradient_stops_the_run_before_its_first_step(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SimCLR.loss
    cut = lambda self, outputs, targets: whole(self, {"z": outputs["z"] / outputs["z"].std().detach()}, targets)  # noqa: E731
    monkeypatch.setattr(SimCLR, "loss", cut)
    assert float(cut(SimCLR(), {"z": torch.rand(2, 4, 3)}, {})) > 0
    run = Experiment.load(Path("config/config.yaml")).runs()[0].id
    assert main(["pretrain", run]) == 0, "this one cannot be seen in the value: a scale does not matter to NT-Xent"
    scaled = lambda self, outputs, targets: whole(self, outputs, targets) * outputs["z"].std().detach()  # noqa: E731
    monkeypatch.setattr(SimCLR, "loss", scaled)
    run = Experiment.load(Path("config/config.yaml")).runs()[2].id
    assert main(["pretrain", run]) == 2
    assert "method 'simclr': loss: its gradient by 'z' is not its derivative" in str(read_failure(run))
    assert not list(Path("work", run).glob("step-*"))
