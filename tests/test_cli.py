"""What ends in one line and exit code 2, and what is a bug and shows where."""

import csv
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gessl import cli
from gessl.errors import UserError


def failing(error: Exception) -> Callable[[object], None]:
    def verb(options: object) -> None:
        raise error

    return verb


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left", "x"), "x: cannot write (No space left); fix that and start again"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied; fix that and start again"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", b"a\nb"), r"a\nb: Not a directory; fix that and start"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error; fix that and start again"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "a file holds no text to be read ("),
        (csv.Error("line contains NUL"), "a file holds no text to be read (line contains NUL); `gessl audit` names"),
        (UserError("a\nb: wrong"), r"a\nb: wrong"),
    ],
)
def test_what_users_can_mend_is_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "schema", failing(error))
    assert cli.main(["schema"]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"gessl: {line}")


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), TypeError("x"), OSError("could not get source code")]
)
def test_bugs_show_where(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "schema", failing(error))
    with pytest.raises(type(error)):
        cli.main(["schema"])


def test_several_faults_are_as_many_lines() -> None:
    assert str(UserError("one\n", "two")) == "one\\n\ntwo"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.yaml"
    path.touch(0o000)
    assert cli.main(["check", "--config", str(path)]) == 2
    assert "cannot be read (Permission denied)" in capsys.readouterr().err
