"""Installed packages against the hashes that they were installed with."""

import base64
import hashlib
import sys
from pathlib import Path

import pytest

from gessl.audit import audit as audit_module
from gessl.audit import rebuild
from gessl.audit.installed import Installed
from gessl.audit.isolated import installed_in
from gessl.cli import main
from gessl.errors import UserError

FILES = {"package/__init__.py": "x = 1\n", "package/deep/core.so": "machine code", "package/data.txt": "text"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of installed packages, with one."""
    place = tmp_path / "site-packages"
    lines = []
    for name, text in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(text)}\n")
    describe(place, "package", "".join([*lines, "package-1.dist-info/RECORD,,\n"]))
    return place


def describe(place: Path, name: str, record: str | None) -> None:
    folder = place / f"{name}-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n", encoding="utf-8")
    if record is not None:
        (folder / "RECORD").write_text(record, encoding="utf-8")


def faults(place: Path) -> dict[str, str]:
    return {
        Path(path).relative_to(place).as_posix(): text for path, text in Installed.check([str(place)]).faults.items()
    }


def test_what_was_installed_is_as_it_was(place: Path) -> None:
    found = Installed.check([str(place)])
    assert (found.faults, found.unchecked, found.files) == ({}, (), 2)
    assert found.summary() == "2 installed files are as they were installed"


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("package/__init__.py", "x = 2\n", "other bytes"),
        ("package/deep/core.so", "evil machine", "other bytes"),
        ("package/__init__.py", None, "not there"),
        ("package/other.py", "", "no distribution brought it"),
        ("package/deep/core.cpython-311-x86_64-linux-gnu.so", "", "no distribution brought it"),
        ("package/deep.pyc", "", "no distribution brought it"),
        ("sitecustomize.py", "", "no distribution brought it"),
        ("evil.pth", "import os\n", "no distribution brought it"),
    ],
)
def test_what_was_changed_since_is_named(place: Path, name: str, text: str | None, fault: str) -> None:
    (place / name).unlink(missing_ok=True)
    if text is not None:
        (place / name).write_text(text, encoding="utf-8")
    assert faults(place) == {name: fault}
    assert f"{place / name} ({fault})" in Installed.check([str(place)]).summary()


def test_what_decides_nothing_is_left_alone(place: Path) -> None:
    (place / "package/data.txt").write_text("other", encoding="utf-8")
    (place / "package/__pycache__").mkdir()
    (place / "package/__pycache__/x.pyc").write_text("", encoding="utf-8")
    (place / "_virtualenv.pth").write_text("", encoding="utf-8")
    assert faults(place) == {}


def test_what_nothing_tells_of_is_said(place: Path) -> None:
    describe(place, "bare", None)
    (place / "bare.py").write_text("", encoding="utf-8")
    assert Installed.check([str(place)]).summary() == (
        "2 installed files are as they were installed; nothing tells of those of bare"
    )


@pytest.mark.parametrize("line", ["package/x.py", "package/x.py,sha256=a,1,2", "package/x.py,sha256=%%%a,1", '"'])
def test_a_damaged_list_is_no_crash(place: Path, line: str) -> None:
    (place / "package/x.py").write_text("", encoding="utf-8")
    record = place / "package-1.dist-info/RECORD"
    record.write_text(record.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    assert faults(place).keys() == {"package/x.py"}


def test_a_replay_refuses_an_altered_environment_unless_it_is_asked_for(place: Path) -> None:
    assert rebuild._checked([str(place)], here=False) == "2 installed files are as they were installed"
    (place / "package/__init__.py").write_text("x = 2\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"package/__init__\.py \(other bytes\); make the environment anew .* --here"):
        rebuild._checked([str(place)], here=False)
    assert "are not as they were installed" in rebuild._checked([str(place)], here=True)


def test_an_audit_checks_them_on_demand(
    project: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit_module, "installed_in", lambda interpreter: [str(place)])
    assert main(["audit", "--environment"]) == 0
    assert "note: 2 installed files are as they were installed\n" in capsys.readouterr().out
    (place / "package/__init__.py").write_text("x = 2\n", encoding="utf-8")
    assert main(["audit"]) == 0
    capsys.readouterr()
    assert main(["audit", "--environment"]) == 1
    assert f"altered: {place}/package/__init__.py: not as it was installed (other bytes); " in capsys.readouterr().out


def test_this_environment_is_where_its_packages_are_found() -> None:
    places = [Path(place) for place in installed_in(sys.executable)]
    assert any((place / "numpy/__init__.py").is_file() for place in places)
