"""`make env` with interpreters and half-made environments as people have them; only the installing is played."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

# plays Python VERSION: `-m venv` makes an environment, with pip or without (as Debian without python3-venv fails)
INTERPRETER = """#!/bin/sh
here=$(dirname -- "$0")
version=%(version)s
case "$1 $2" in
  "--version ") echo "Python 3.$version.1";;
  "-c "*) [ "$version" -ge 11 ] && { [ "$here" != .venv/bin ] || [ -e .venv/lib/python3/site-packages/pip ]; };;
  "-m venv")
    mkdir -p .venv/bin .venv/lib/python3/site-packages
    cp "$0" .venv/bin/python
    touch .venv/pyvenv.cfg
    %(pip)s
    echo made >> log;;
  "-m pip" | "-m uv") echo "$3" >> log; touch .venv/lib/python3/site-packages/torch;;
esac
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = tmp_path / "it's a $place"
    (project / "workflow").mkdir(parents=True)
    shutil.copy(ROOT / "workflow/make-env", project / "workflow")
    for name in ("requirements.lock", "pyproject.toml"):
        (project / name).touch()
    monkeypatch.chdir(project)
    return project


def interpreter(folder: Path, version: int = 12, pip: bool = True) -> Path:
    path = folder.parent / f"my python3.{version}{'' if pip else '-bare'}"
    with_pip = "touch .venv/lib/python3/site-packages/pip" if pip else "echo ensurepip is not available >&2; exit 1"
    path.write_text(INTERPRETER % {"version": version, "pip": with_pip}, encoding="utf-8")
    path.chmod(0o755)
    return path


def make_env(python: Path) -> tuple[int, str, list[str]]:
    """Exit code, what was said, what was done."""
    log = Path("log")
    log.unlink(missing_ok=True)
    variables = os.environ | {"PYTHON": str(python), "CDPATH": "/"}
    done = subprocess.run(["workflow/make-env", "1"], env=variables, capture_output=True, encoding="utf-8")
    return done.returncode, done.stdout + done.stderr, log.read_text(encoding="utf-8").split() if log.exists() else []


ALL = ["made", "install", "pip", "pip"]


def test_it_is_made_once(project: Path) -> None:
    python = interpreter(project)
    assert make_env(python) == (0, "", ALL)
    assert make_env(python) == (0, "", [])
    (project / "requirements.lock").write_text("another", encoding="utf-8")
    assert make_env(python) == (0, "", ALL[1:]), "the environment stays, its packages follow the lock"


def test_an_old_python_is_refused_in_one_line(project: Path) -> None:
    code, said, done = make_env(interpreter(project, 10))
    assert (code, done, len(said.splitlines())) == (2, [], 1)
    assert "python3.10 is Python 3.10.1, but Python 3.11 or later is needed" in said
    assert not Path(".venv").exists()


def test_a_python_that_cannot_make_one_is_no_dead_end(project: Path) -> None:
    for _ in range(2):
        code, said, _done = make_env(interpreter(project, pip=False))
        assert code == 2 and len(said.splitlines()) == 1
        assert "install its venv and pip (Debian: apt-get install python3-venv)" in said
    assert make_env(interpreter(project)) == (0, "", ALL), "what that left is made anew"


@pytest.mark.parametrize("old", ["moved", "moved, of an older make", "of an old Python", "of a Python that is gone"])
def test_one_of_another_place_or_python_is_made_anew(old: str, project: Path) -> None:
    make_env(interpreter(project))
    if old.startswith("moved"):
        if "older" in old:
            Path(".venv/.locked").write_text("", encoding="utf-8")
            Path(".venv/lib/python3/site-packages/_editable_impl_gessl.pth").write_text(str(project), encoding="utf-8")
        moved = project.rename(project.with_name("elsewhere"))
        os.chdir(moved)
    elif old == "of an old Python":
        Path(".venv/bin/python").write_text(INTERPRETER % {"version": 10, "pip": ""}, encoding="utf-8")
    else:
        Path(".venv/bin/python").unlink()
    assert make_env(interpreter(project)) == (0, "", ALL)
    assert make_env(interpreter(project)) == (0, "", [])


@pytest.mark.parametrize("kind", ["a folder", "a link", "of somebody's own"])
def test_what_is_not_ours_stays(kind: str, project: Path) -> None:
    """It cannot be used, but nobody said that it may go."""
    own = project / (".venv" if kind != "a link" else "own")
    (own / "lib/python3/site-packages/mine").mkdir(parents=True)
    if kind != "a folder":
        (own / "pyvenv.cfg").touch()
    if kind == "a link":
        Path(".venv").symlink_to(own)
    code, said, done = make_env(interpreter(project))
    assert (code, done) == (2, [])
    assert said == "make env: .venv cannot be used here, and was not made by this; move it away and start again\n"
    assert (own / "lib/python3/site-packages/mine").is_dir()
