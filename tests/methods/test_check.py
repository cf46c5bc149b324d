"""`gessl check --method`: a line for each clause, for methods of ours and of a user's own package."""

from pathlib import Path

import pytest

from gessl.cli import main
from gessl.training.contract import CLAUSES, report
from tests.bilevel.smooth import METHODS
from tests.conftest import ROOT
from tests.methods.test_discovery import SOUND


@pytest.mark.parametrize("name", METHODS)
def test_each_method_of_ours_keeps_its_contract(name: str) -> None:
    found = dict(report(name, METHODS[name]))
    assert [problem for problem in found.values() if problem] == []
    assert found.keys() > CLAUSES.keys()


@pytest.mark.parametrize(
    ("right", "wrong", "code", "line"),
    [
        ("", "", 0, "✓ every hyper-parameter is read"),
        ("z[0] - z[1]", "z[0] - z[1].detach()", 1, "✗ gradients are derivatives"),
        (
            "self.weight *",
            "0.5 *",
            1,
            "is read: method 'mine.it:Spread': hyper-parameter 'weight' is never",
        ),
        (".mean()\n", ".mean().item()\n", 1, "✗ gradients are derivatives: none"),
    ],
)
def test_a_class_of_a_package_of_ones_own(
    right: str, wrong: str, code: int, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    import sys

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/it.py").write_text(SOUND.replace(right, wrong) if right else SOUND, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("mine", "mine.it"):
        sys.modules.pop(name, None)
    assert main(["check", "--method", "mine.it:Spread"]) == code
    assert line in capsys.readouterr().out
    assert main(["check", "--method", "mine.it:Sprad"]) == 2


def test_an_unknown_name_and_values_alone_are_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["check", "--method", "simclrr"]) == 2
    assert main(["check", "--values", "x.yaml"]) == 2
