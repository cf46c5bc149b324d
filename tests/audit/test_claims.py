"""A record that names a lock or a commit that it was not made with cannot be verified."""

from importlib import metadata
from pathlib import Path

import pytest

from gessl.audit import repository
from gessl.audit.audit import audit
from gessl.audit.environments import interpreter_for
from gessl.files import sha256_file
from gessl.layout import LOCK, RECORD, report_dir
from gessl.records import provenance
from tests.support.repositories import commit, forge, write

REPORT = report_dir("grid")
OWN = metadata.version("torch").partition("+")[0]


def _unverifiable() -> list[str]:
    """What is said of the report, which is all that is altered here."""
    found = [finding for finding in audit().findings if finding.kind != "stale"]
    assert {(finding.kind, finding.path) for finding in found} <= {("unverifiable", str(REPORT))}
    return [f"{finding.what}; {finding.fix}" for finding in found]


def _lock(*lines: str) -> None:
    LOCK.write_text("".join(f"{line} \\\n    --hash=sha256:00\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize(
    "pins",
    [
        (f"torch=={OWN}",),
        (f"torch=={OWN}+cpu ; sys_platform == 'linux'",),
        (f"torch[opt]=={OWN}", "torchvision-extra==1"),
        ("torch==9.9.9 ; python_full_version < '3.2'", f"torch=={OWN} ; python_full_version >= '3.2'"),
        ("pytorch==9.9.9",),
    ],
)
def test_a_lock_with_the_recorded_libraries_holds(project: Path, pins: tuple[str, ...]) -> None:
    _lock(*pins)
    forge(REPORT, lambda record: record["environment"].update(lock=sha256_file(LOCK)))
    assert _unverifiable() == []
    forge(REPORT, lambda record: record["environment"]["libraries"].update(torch=f"{OWN}+cu130"))
    assert _unverifiable() == []


def test_a_lock_with_other_libraries_is_told(project: Path) -> None:
    _lock("torch==9.9.9", "numpy==1.0 ; a", "numpy==1.1 ; b")
    forge(REPORT, lambda record: record["environment"].update(lock=sha256_file(LOCK)))
    numpy, torch = metadata.version("numpy"), metadata.version("torch")
    own = f"numpy {numpy} (locked: 1.0 or 1.1), torch {torch} (locked: 9.9.9)"
    (line,) = _unverifiable()
    assert line == (
        f"made with other libraries than requirements.lock has, which it names: {own}; make env, then"
        f" move {REPORT} away and run its step again"
    )
    assert audit().exit_code == 1
    (project / "tree").mkdir()
    _, told = interpreter_for({"lock": sha256_file(LOCK)}, project / "tree", here=False)
    assert told.endswith(f"which has the recorded lock, but not its libraries: {own}")
    LOCK.write_text("torch==9.9.8\n", encoding="utf-8")  # another lock says nothing of them
    assert _unverifiable() == []


def test_the_commit_must_have_the_recorded_sources(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    files = {"__init__.py": "", "files.py": "import os\n", "files-old.py": "", "page/style.css": "p {}"}
    for name, text in files.items():
        (home / "gessl" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "gessl" / name).write_text(text, encoding="utf-8")
    write(home, {".gitignore": ".*.swp\n__pycache__\n", "gessl/files/x.py": ""})
    made_at = commit(home)
    write(home, {"gessl/files.py": "import sys\n"})
    other = commit(home)
    monkeypatch.setattr(repository, "HOME", home)
    monkeypatch.setattr(provenance, "PACKAGE", home / "gessl")
    write(home, {"gessl/.files.py.swp": "being edited", "gessl/__pycache__/files.pyc": "x"})
    present = provenance.code_state.__wrapped__()
    assert (present["commit"], present["dirty"]) == (other, None)

    monkeypatch.undo()
    monkeypatch.chdir(project)
    monkeypatch.setattr(repository, "HOME", home)
    forge(REPORT, lambda record: record["code"].update(present))
    assert _unverifiable() == []
    forge(REPORT, lambda record: record["code"].update(commit=made_at))
    (line,) = _unverifiable()
    assert line == (
        f"made by other sources than those of commit {made_at[:12]}, which it names;"
        f" move {REPORT} away and run its step again"
    )
    for unknown in ({"dirty": "d" * 64}, {"dirty": None, "commit": "f" * 40}, {"commit": None}):
        forge(REPORT, lambda record, change=unknown: record["code"].update(change))
        assert _unverifiable() == []
    forge(REPORT, lambda record: record["code"].update(commit=other, dirty=None, rules="0" * 64))
    (line,) = _unverifiable()
    assert line.startswith(f"made by other rules than those of commit {other[:12]}, which it names; ")
    for name in ("HEAD", other[:12], "main"):
        forge(REPORT, lambda record, name=name: record["code"].update(commit=name))
        (line,) = _unverifiable()
        assert line.startswith(f"names '{name}' for its commit, which is not the whole hash of one; ")


def _commit_notes() -> list[str]:
    return [note for note in audit().notes if "could not be looked up" in note]


def test_what_could_not_be_looked_up_is_counted_and_told(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = sorted(path.parent for path in (project / "results").rglob(RECORD))
    for folder in records:
        forge(folder, lambda record: record["code"].update(commit="f" * 40, dirty=None))
    forge(records[0], lambda record: record["code"].update(commit=None))
    forge(records[1], lambda record: record["code"].update(commit=None, git="git: detected dubious ownership"))
    others = len(records) - 2
    one = f"the commits of 1 of {len(records)} records could not be looked up (none is recorded: "
    told = [f"{one}git: detected dubious ownership)", f"{one}made outside version control)"]
    many = f"the commits of {others} of {len(records)} records could not be looked up"
    assert _commit_notes() == [*told, f"{many} (this repository does not have them)"]
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert _commit_notes() == [f"{many} (git is not installed)", *told]
    monkeypatch.setattr(repository, "HOME", tmp_path)
    assert len(_commit_notes()) == 3


@pytest.mark.parametrize("libraries", [{}, dict.fromkeys(provenance.LIBRARIES)])
def test_a_record_of_no_library_cannot_be_verified(project: Path, libraries: dict[str, None]) -> None:
    forge(REPORT, lambda record: record["environment"].update(libraries=libraries))
    (line,) = _unverifiable()
    assert line.startswith("its record tells of no library that it was made with; make env, then move ")


def test_a_library_that_the_lock_has_must_be_told(project: Path) -> None:
    _lock(f"torch=={OWN}", f"numpy=={metadata.version('numpy')}")
    forge(REPORT, lambda record: record["environment"].update(lock=sha256_file(LOCK)))
    assert _unverifiable() == []
    forge(REPORT, lambda record: record["environment"]["libraries"].update(scipy=None))
    assert _unverifiable() == []
    for change in ({"numpy": None}, {"numpy": ""}):
        forge(REPORT, lambda record, change=change: record["environment"]["libraries"].update(change))
        (line,) = _unverifiable()
        assert line.startswith("its record does not tell the version of numpy, which requirements.lock has; ")


def test_one_commit_is_looked_up_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "gessl.audit.claims.states_at", lambda name: asked.append(name) or dict.fromkeys(("sources", "rules"))
    )
    for folder in (REPORT, Path("results/scores/toy-simclr-s0-0123abcd/toy/probes__v1")):
        forge(folder, lambda record: record["code"].update(commit="a" * 40, dirty=None))
    audit()
    assert asked.count("a" * 40) == 1
