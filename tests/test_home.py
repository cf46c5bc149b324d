"""A copied project runs its own code or nothing, and libraries can tell who the user is."""

import io
import sys
from pathlib import Path

import pytest

from gessl import cli, home
from gessl.errors import UserError


def test_a_copy_of_the_project_does_not_run_the_code_of_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gessl").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["schema"]) == 0, "a folder of that name is no package"
    (tmp_path / "gessl/__init__.py").touch()
    capsys.readouterr()
    assert cli.main(["schema"]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"gessl: {tmp_path}/gessl: not the code that runs, which is {home.PACKAGE}: ")
    assert len(told.err.splitlines()) == 1 and not told.out
    monkeypatch.chdir(home.PACKAGE.parent)
    home.require_own_code()
    home.require_own_code(*sys.path)
    with pytest.raises(UserError, match="belongs to another copy"):  # whose `gessl` a job would run
        home.require_own_code(str(tmp_path))


def test_libraries_get_a_name_and_a_home_only_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("LOGNAME", "me")
    assert home.for_libraries() == {"PYTHONUTF8": "1"}

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 54321")

    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    found = home.for_libraries()
    assert found["LOGNAME"].startswith("uid") and Path(found["HOME"]).is_absolute()


def test_what_the_terminal_cannot_show_is_spelt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="iso-8859-1")
    monkeypatch.setattr(sys, "stderr", terminal)
    assert cli.main(["check", "--config", "σ.yaml"]) == 2
    terminal.flush()
    assert rb"\u03c3.yaml" in terminal.buffer.getvalue()  # type: ignore[attr-defined]
