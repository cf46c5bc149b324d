"""What ends in one line and exit code 2, and what is a bug and shows where."""

import csv
import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gessl import cli, data_verbs, verbs
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
def test_what_users_can_fix_is_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verbs, "schema", failing(error))
    assert cli.main(["schema"]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"gessl: {line}")


@pytest.mark.parametrize(
    ("verb", "words", "line"),
    [
        ("pretrain", ["pretrain", "x"], "the run goes on from its last checkpoint when started again"),
        ("data_add", ["data", "add", "x", "--folder", "y"], "no picture is lost, and nothing is half-made"),
        ("schema", ["schema"], "what is finished stays; start it again for the rest"),
    ],
)
def test_an_interrupted_verb_says_what_becomes_of_its_work(
    verb: str, words: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    room = data_verbs if verb.startswith("data_") else verbs
    assert callable(getattr(room, verb))
    stopped = failing(KeyboardInterrupt())  # type: ignore[arg-type]
    stopped.__name__ = verb
    monkeypatch.setattr(room, verb, stopped)
    assert cli.main(words) == 130
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"gessl: interrupted; {line}")


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), TypeError("x"), OSError("could not get source code")]
)
def test_bugs_show_where(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "schema", failing(error))
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


@pytest.mark.parametrize(("name", "text"), [row[:2] for row in cli.VERBS])
def test_every_verb_is_a_function_that_says_what_it_takes(
    name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*name.split(), "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: gessl {name} ") and text[1:25] in shown
    *family, own = name.split()
    with pytest.raises(SystemExit):
        cli.main([*family, "--help"])
    assert re.search(rf"^    {own}\s", capsys.readouterr().out, flags=re.M)
    assert "None" not in shown
    assert callable(getattr(data_verbs if family else verbs, re.sub("[ -]", "_", name)))


@pytest.mark.parametrize("words", [[], ["r", "--spec", "spec.json"]])
@pytest.mark.parametrize(("verb", "what"), [("pretrain", "run"), ("evaluate", "run"), ("tasks", "dataset")])
def test_a_step_is_told_what_to_do_by_one_of_two(
    verb: str, what: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb, *words]) == 2
    assert capsys.readouterr().err == f"gessl: {verb}: name a {what}, or give --spec FILE: one of the two\n"


# as users start it: Python itself writes what is left of the output when it ends
CLI = [sys.executable, "-c", "import sys; from gessl.cli import main; sys.exit(main())"]


def started(words: list[str], **streams: object) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run([*CLI, *words], env=environment, encoding="utf-8", check=False, **streams)  # type: ignore[call-overload, no-any-return]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = started(["schema"], stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("gessl: standard output: cannot write (No space left on device); ")
        done = started(["export", "x", "y"], stdout=subprocess.PIPE, stderr=full)
        assert (done.returncode, done.stdout) == (2, "")


def test_track_wants_a_command_after_the_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["track", "--"]) == 2
    assert "gessl: track: no command after --; " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stands", "line"),
    [
        (
            lambda path: path.symlink_to("/nonexistent/disk"),
            "gessl: results: a link to /nonexistent/disk, which is not ",
        ),
        (
            lambda path: path.write_text("mine", encoding="utf-8"),
            "gessl: results: no folder, but one is needed here; move ",
        ),
    ],
)
def test_what_stands_where_a_folder_is_needed_is_named(
    stands: Callable[[Path], object], line: str, unprepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def verb(options: object) -> None:
        Path("results/raw/digits").mkdir(parents=True, exist_ok=True)

    stands(unprepared / "results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verbs, "schema", verb)
        assert cli.main(["schema"]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(line) and told.endswith(" and start again")
