"""Pixels and untrained networks through the workflow: nothing is trained, and their records can be replayed."""

from pathlib import Path

import pytest
import yaml

from gessl.cli import main
from gessl.grid.batch import ExperimentBatch
from gessl.layout import RECORD, data_dir, file_stem, pin, scores_dir
from gessl.records.record import read_record
from gessl.tables.scores import read_scores
from tests.conftest import SMALL
from tests.workflow.test_pipeline import jobs_of, snakemake

CONFIG = Path("config/config.yaml")
KNN = "knn/5nn-euclid"


@pytest.fixture
def batch(prepared: Path) -> ExperimentBatch:
    tree = {**SMALL, "seeds": [0], "baselines": ["pixels", "untrained"], "evaluation": [KNN]}
    CONFIG.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return ExperimentBatch.load([CONFIG])


@pytest.mark.slow
def test_they_are_scored_without_training_and_replayed_to_the_same_bytes(batch: ExperimentBatch) -> None:
    targets = [str(scores_dir(name, "digits") / RECORD) for name in batch.others]
    planned = snakemake(*targets, "--dry-run", "-q", "rules")
    assert jobs_of(planned) == {"evaluate": 2}
    done = snakemake(*targets)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, subject in batch.others.items():
        folder = scores_dir(name, "digits") / file_stem(KNN)
        (row,) = read_scores(folder)
        assert row["method"] == subject.method and float(row["value"]) > 80
        record = read_record(folder)
        assert record is not None and record["config"]["baseline"]["dataset"] == "digits"
        assert main(["replay", str(folder / RECORD)]) == 0
    assert jobs_of(snakemake(*targets, "--dry-run", "-q", "rules")) == {}


def test_on_other_data_they_wait_for_their_own(batch: ExperimentBatch) -> None:
    """Mean and spread are those of the data set that they stand for."""
    for path in (Path("config/datasets/digits.yaml"), pin("digits")):
        text = path.read_text(encoding="utf-8").replace("path: digits", "path: digits-two")
        path.with_stem("digits-two").write_text(text, encoding="utf-8")
    tree = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    tree["evaluation"] = [{"protocol": KNN, "on": ["digits-two"]}]
    CONFIG.write_text(yaml.safe_dump(tree), encoding="utf-8")
    (data_dir("digits") / RECORD).unlink()
    name = next(name for name in batch.others if "untrained" in name)
    planned = jobs_of(snakemake(str(scores_dir(name, "digits-two") / RECORD), "--dry-run", "-q", "rules"))
    assert planned == {"fetch": 1, "prepare": 2, "evaluate": 1}
