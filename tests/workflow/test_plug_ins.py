"""A protocol more: one file and one yaml, scored for finished runs, shown with its card; nothing else is made again.

One that is heavy is a job of its own.
"""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.workflow.test_places import CELL, environment, release

CONFIG = "config/two.yaml"
PROTOCOL = '''
from dataclasses import dataclass

import torch

from gessl.protocols._items import accuracy_score
from gessl.protocols.contract import Protocol
from gessl.settings import Count
from gessl.tables.scores import Card


@dataclass(frozen=True)
class NearestMean(Protocol):
    """Accuracy of the nearest class mean."""

    first: Count

    wants = frozenset({"labels", "shared classes"})

    def cards(self):
        return {self.id: Card(f"The nearest mean of {self.first} images a class.", "a test")}

    def score(self, subject, target, tasks, seed):
        train, labels = subject.features[target.train], target.labels[target.train]
        means = [train[labels == label][: self.first].mean(0) for label in range(target.classes)]
        away = (subject.features[target.test][:, None] - torch.stack(means)).norm(dim=-1)
        return [accuracy_score(self.id, "all", away.argmin(1) == target.labels[target.test])]
'''


def records(project: Path) -> dict[str, bytes]:
    """Every record but those of bundles and reports, which stand for others."""
    found = (
        path
        for part in ("raw", "data", "tasks", "runs", "scores")
        for path in (project / "results" / part).rglob("record.json")
    )
    return {
        path.relative_to(project).as_posix(): path.read_bytes()
        for path in found
        if b'"step": "bundle"' not in path.read_bytes()
    }


def snakemake(project: Path, python: Path, *words: str) -> str:
    variables = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": os.environ.get("HOME", str(project))}
    command = [python, "-m", "snakemake", "--profile", "workflow/profiles/local", "--configfile", CONFIG, *words]
    done = subprocess.run(command, cwd=project, env=variables, capture_output=True, encoding="utf-8", timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_protocol_is_added_to_finished_runs(tmp_path: Path) -> None:
    project = tmp_path / "project"
    with tarfile.open(release(tmp_path / "release.tar.gz")) as tar:
        tar.extractall(project, filter="data")
    python = environment(project)
    asked = {**CELL, "seeds": [0, 1], "evaluation": ["knn/5nn-euclid", {"protocol": "sigma/onehot", "tasks": 2}]}
    (project / CONFIG).write_text(yaml.safe_dump(asked), encoding="utf-8")
    snakemake(project, python)
    before = records(project)

    heavy = PROTOCOL.replace("    wants =", "    heavy = True\n    wants =")
    for stem, text in (("mine__nearest_mean", PROTOCOL), ("mine__nearest_mean_alone", heavy)):
        (project / f"gessl/protocols/{stem}.py").write_text(text, encoding="utf-8")
        (project / f"config/protocols/{stem}.yaml").write_text("first: 5\n", encoding="utf-8")
    asked["evaluation"] = [*asked["evaluation"], "mine/nearest-mean", "mine/nearest-mean-alone"]
    asked["resources"] = {"heavy": {"mem_mb": 1234}}
    (project / CONFIG).write_text(yaml.safe_dump(asked), encoding="utf-8")
    planned = snakemake(project, python, "--dry-run")
    for rule in ("fetch", "prepare", "tasks", "pretrain"):
        assert f"rule {rule}:" not in planned, planned
    assert planned.count("rule evaluate:") == planned.count("rule evaluate_heavy:") == 2
    assert planned.count("mem_mb=1234") == 2
    snakemake(project, python)

    after = records(project)
    assert {name: after.get(name) for name in before} == before, "another record changed"
    new = after.keys() - before.keys()
    added = ["mine__nearest_mean", "mine__nearest_mean_alone"]
    assert sorted(name.split("/")[-2] for name in new) == sorted(added * 2)
    assert "Nothing to be done" in snakemake(project, python, "--dry-run")
    page = (project / "results/report/small/sigma-report.html").read_text(encoding="utf-8")
    assert "mine/nearest-mean" in page and "The nearest mean of 5 images a class." in page
    assert (project / "results/report/small/tables").is_dir()
    assert any("mine-nearest-mean" in path.name for path in (project / "results/report/small/tables").iterdir())
