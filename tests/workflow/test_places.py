"""Anywhere, as anybody: an odd folder, another locale, a release without git, a user who has neither name nor home."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, SMALL

NAMELESS = 54321
CONFIG = "config/my $cell's.yaml"
RECORD = "results/raw/digits/record.json"
CELL = {
    **SMALL,
    "seeds": [0],
    "recipe": {"train": {"steps": 4, "batch": 32, "warmup": 1, "lr": 0.003}},
    "variants": {"base": {}},
    "comparisons": [],
    "evaluation": ["knn/5nn-euclid"],
}


def release(file: Path) -> Path:
    """What a release of the project holds: its files, and nothing of git's."""
    files = ("Makefile", "Snakefile", "pyproject.toml", "requirements.lock", ".dvc/config", ".dvcignore")
    parts = ("config", "workflow", "gessl", *files)
    with tarfile.open(file, "w:gz") as tar:
        for part in (*parts, *(path.relative_to(ROOT).as_posix() for path in (ROOT / "data/raw").glob("*.dvc"))):
            tar.add(ROOT / part, part, filter=lambda entry: None if "__pycache__" in entry.name else entry)
    return file


def environment(project: Path) -> Path:
    """An environment in the project as `make env` makes it, but with the libraries of this one; its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / ".venv"], check=True)
    (packages,) = (project / ".venv/lib").glob("python*/site-packages")
    lines = f"{project}\n{sysconfig.get_path('purelib')}\n"
    (packages / "places.pth").write_text(lines, encoding="utf-8")
    python = project / ".venv/bin/python"
    script = f'#!/bin/sh\nexec {shlex.quote(str(python))} -m gessl "$@"\n'
    (python.parent / "gessl").write_text(script, encoding="utf-8")
    (python.parent / "gessl").chmod(0o755)
    # what `workflow/make-env` writes when it is done: `make` takes it for its own
    words = "pwd -P; .venv/bin/python --version; cksum requirements.lock pyproject.toml"
    state = subprocess.run(words, shell=True, cwd=project, capture_output=True, check=True).stdout
    (project / ".venv/.locked").write_bytes(state)
    return python


def other_locale(folder: Path) -> dict[str, str]:
    """The variables of a locale whose encoding is not UTF-8: Chinese, where its sources are installed, else C."""
    name = "zh_CN.GB18030"
    command = ["localedef", "-i", "zh_CN", "-f", "GB18030", str(folder / name)]
    made = shutil.which("localedef") and subprocess.run(command, capture_output=True).returncode == 0
    return {"LC_ALL": name, "LOCPATH": str(folder)} if made else {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}


def unpack(tmp_path: Path) -> tuple[Path, Path, dict[str, str]]:
    """A release in an odd place: the project, the Python of its environment, and the variables of an odd user."""
    project = tmp_path / "it's a fólder of $HOME & {mine}" / "gessl"
    before = os.umask(0o077)
    try:
        project.mkdir(parents=True)
        with tarfile.open(release(tmp_path / "release.tar.gz")) as tar:
            tar.extractall(project, filter="data")
        (project / CONFIG).write_text(yaml.safe_dump(CELL), encoding="utf-8")
        return (
            project,
            environment(project),
            {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **other_locale(tmp_path)},
        )
    finally:
        os.umask(before)


def run(project: Path, command: list[str], variables: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        [*as_nobody(project.parents[1]), *command],
        cwd=project,
        env=variables,
        umask=0o077,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=500,
    )
    return done.returncode, done.stdout.decode(errors="replace")


def as_nobody(owned: Path) -> list[str]:
    """What runs a command as a user without a name who owns the folder `owned`; nothing where we may not do that.

    That user may read everything, since the interpreter of whoever runs the tests may lie in a closed home.
    """
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return []
    for path in (owned, *owned.rglob("*")):
        os.chown(path, NAMELESS, NAMELESS, follow_symlinks=False)
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", f"--reuid={NAMELESS}", f"--regid={NAMELESS}", "--clear-groups", *reading, "--"]


@pytest.mark.slow
def test_data_are_fetched_in_an_odd_place_by_an_odd_user(tmp_path: Path) -> None:
    project, python, variables = unpack(tmp_path)
    variables["HOME"] = str(project / "work/home")  # as the Makefile has it where there is none
    words = ["-m", "snakemake", RECORD, "--profile", "workflow/profiles/local", "--configfile", CONFIG]
    code, said = run(project, [str(python), *words], variables)
    assert code == 0, said
    assert (project / "data/raw/digits/digits.csv.gz").stat().st_mode & 0o777 == 0o600
    assert not (project / "~").exists()
    log = (project / "logs/fetch/digits.log").read_text(encoding="utf-8")
    assert "as pinned, but not in DVC's cache" in log and "Traceback" not in log


@pytest.mark.slow
def test_one_cell_from_an_odd_place_to_a_passing_audit(tmp_path: Path) -> None:
    project, _, variables = unpack(tmp_path)
    code, said = run(project, ["make", "run", f"CONFIG={CONFIG}"], variables)
    assert code == 0, said
    assert "audit passed" in said and "warning: tracking" not in said and "Traceback" not in said, said
    assert "σ" in (project / "results/report/small/sigma-report.html").read_text(encoding="utf-8")
    assert (project / "mlflow/mlflow.db").stat().st_size, "mirrored"
    assert not (project / "~").exists()
