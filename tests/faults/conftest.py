"""A small project in which every verb has run once."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from gessl.cli import main
from gessl.grid.batch import ExperimentBatch
from tests.conftest import SMALL, copy_project

CONFIG = Path("config/config.yaml")
TINY = SMALL | {
    "seeds": [0],
    "variants": {"base": {}},
    "comparisons": [],
    "recipe": {"backbone": "small-vit", "train": {"steps": 2, "batch": 8, "warmup": 1, "lr": 0.003}},
    "evaluation": ["knn/5nn-euclid", {"protocol": "fewshot/proto-v1", "ways": [5], "shots": [1], "episodes": 4}],
    "efficiency": {"checkpoint_every": 1, "log_every": 1},
}  # fmt: skip


def run_id() -> str:
    """The one run of the project in the working directory."""
    (run,) = ExperimentBatch.load([CONFIG]).runs
    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project; what a test changes it changes in a copy."""
    home, before = copy_project(tmp_path_factory.mktemp("finished")), Path.cwd()
    os.chdir(home)
    try:
        CONFIG.write_text(yaml.safe_dump(TINY), encoding="utf-8")
        run = run_id()
        steps = (["fetch", "digits"], ["prepare", "digits"], ["tasks", "digits", "0"], ["pretrain", run])
        for words in (*steps, ["evaluate", run], ["report"], ["crate", "small", "crate"]):
            assert main(words) == 0
        if shutil.which("ssh-keygen"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"], check=True)
            assert main(["sign", "key"]) == 0
    finally:
        os.chdir(before)
    return home


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project; it is the working directory."""
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "project"))
    return Path.cwd()
