"""The page on one's own pictures, from a folder that the test makes to a σ-report: each of its commands, in order."""

import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.data.own.conftest import draw
from tests.workflow.test_places import environment, release

PAGE = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, flags=re.S)


@pytest.mark.slow
def test_from_photographs_to_a_report(tmp_path: Path) -> None:
    project = tmp_path / "project"
    with tarfile.open(release(tmp_path / "release.tar.gz")) as tar:
        tar.extractall(project, filter="data")
    environment(project)
    for place, name in enumerate(("cats", "dogs", "fish & chips")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(40):
            draw(100 * place + number, (120, 90)).save(folder / f"a photo {number}.jpg")
    (experiment,) = blocks("yaml")
    short = experiment.replace("steps: 100", "steps: 2").replace("warmup: 10", "warmup: 1")
    (project / "config/photos.yaml").write_text(short, encoding="utf-8")
    variables = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": os.environ.get("HOME", str(project))}
    for block in blocks("sh"):
        for command in block.strip().splitlines():
            done = subprocess.run(
                ["bash", "-c", command], cwd=project, env=variables, capture_output=True, encoding="utf-8", timeout=500
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            assert done.stdout
    page = (project / "results/report/photos/sigma-report.html").read_text(encoding="utf-8")
    assert "Does GeSSL help on my photographs?" in page
    assert "audit passed" in done.stdout + done.stderr
    assert "fish &amp; chips" in (project / "work/show/photos.html").read_text(encoding="utf-8")
