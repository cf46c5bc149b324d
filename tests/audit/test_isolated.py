"""What a replay starts imports the recorded code and the installed packages, whatever lies around."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gessl.audit.isolated import installed_in, isolated

SAYS = "import yaml, sys; print(__name__, sys.argv[1:], yaml.__file__, sys.flags.isolated)\n"


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with recorded code; around it, files that Python would rather import."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, project, evil = tmp_path / "code", tmp_path / "project", tmp_path / "evil"
    (code / "recorded").mkdir(parents=True)
    (code / "recorded/__init__.py").write_text("", encoding="utf-8")
    (code / "recorded/__main__.py").write_text(SAYS, encoding="utf-8")
    for folder in (project, evil):
        (folder / "recorded").mkdir(parents=True)
        for name in ("yaml.py", "sitecustomize.py", "usercustomize.py", "recorded/__init__.py", "site.py"):
            (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    for name in ("PYTHONPATH", "PYTHONUSERBASE", "PYTHONHOME"):
        monkeypatch.setenv(name, str(evil))
    monkeypatch.setenv("PYTHONSTARTUP", str(evil / "yaml.py"))
    monkeypatch.chdir(project)
    return tmp_path


def start(scratch: Path, *words: str) -> str:
    with isolated(sys.executable, scratch / "code", installed_in(sys.executable), scratch) as python:
        done = subprocess.run([*python, *words], capture_output=True, encoding="utf-8", check=True)
    assert not (scratch / "ran").exists()
    return done.stdout


def test_nothing_else_is_imported(scratch: Path) -> None:
    name, words, yaml, flag = start(scratch, "recorded", "a", "-b").replace("', '", "','").split()
    assert (name, words, flag) == ("__main__", "['a','-b']", "1")
    assert yaml == importlib.util.find_spec("yaml").origin  # type: ignore[union-attr]


def test_a_script_of_ours_can_be_started(scratch: Path) -> None:
    script = scratch / "script.py"
    script.write_text(f"import recorded\n{SAYS}", encoding="utf-8")
    assert start(scratch, str(script), "a").split()[:2] == ["__main__", "['a']"]


@pytest.mark.slow
def test_processes_that_share_a_step_import_nothing_else(scratch: Path) -> None:
    with isolated(sys.executable, scratch / "code", installed_in(sys.executable), scratch) as python:
        shared = [*python, "torch.distributed.run", "--no-python", "--nproc-per-node", "2", *python, "recorded", "a"]
        environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(shared, capture_output=True, encoding="utf-8", check=True, env=environment)
    assert done.stdout.count("__main__ ['a']") == 2
    assert not (scratch / "ran").exists()


def poison(source: Path) -> None:
    """Bytecode of another program, which Python takes for that of `source`."""
    other, facts = source.with_name("other.py"), source.stat()
    other.write_text("print('poisoned')".ljust(facts.st_size - 1) + "\n", encoding="utf-8")
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    make = f"import py_compile; py_compile.compile({str(other)!r}, {importlib.util.cache_from_source(str(source))!r})"
    subprocess.run([sys.executable, "-c", make], check=True, env=os.environ | {"PYTHONHOME": "", "PYTHONPATH": ""})
    other.unlink()


def test_bytecode_that_lies_around_is_not_read(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the code, and that of installed packages; what is kept is in the user's own cache."""
    installed = scratch / "installed"
    installed.mkdir()
    (installed / "package.py").write_text("print('honest') # and long enough for the other\n", encoding="utf-8")
    (scratch / "code/recorded/__main__.py").write_text("import package, recorded.part\n", encoding="utf-8")
    (scratch / "code/recorded/part.py").write_text(
        "print('honest') # and long enough for the other\n", encoding="utf-8"
    )
    for name in ("PYTHONHOME", "PYTHONPATH"):
        monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    for source in (installed / "package.py", scratch / "code/recorded/part.py"):
        poison(source)
    plain = subprocess.run(
        [sys.executable, "-c", "import package, recorded.part"],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": f"{scratch / 'code'}:{installed}", "PYTHONSAFEPATH": "1"},
    )
    assert plain.stdout == "poisoned\n" * 2, "or this test tests nothing"
    with isolated(sys.executable, scratch / "code", [str(installed)], scratch) as python:
        done = subprocess.run([*python, "recorded"], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "honest\n" * 2
    kept = [path.name for path in (scratch / "cache/gessl/bytecode").rglob("*.pyc")]
    assert [name.partition(".")[0] for name in kept if "package" in name or "part" in name] == ["package"]


def test_a_cache_that_others_can_write_to_is_not_used(scratch: Path) -> None:
    (scratch / "cache/gessl/bytecode").mkdir(parents=True)
    (scratch / "cache/gessl/bytecode").chmod(0o777)
    start(scratch, "recorded")
    assert not list((scratch / "cache/gessl/bytecode").iterdir())
