"""Records decide what is made again: neither times, nor what Snakemake remembers, nor bytes that come out the same."""

import os
import shutil
from pathlib import Path

import pytest

from gessl.grid.batch import ExperimentBatch
from gessl.grid.outdated import downstream
from gessl.layout import RECORD, data_dir, file_stem, manifest_dir, pin, tasks_dir
from tests.workflow.test_pipeline import jobs_of, snakemake

DRAWN = tasks_dir("digits", 0)
TARGET = str(DRAWN / RECORD)


def planned(*words: str) -> dict[str, int]:
    return jobs_of(snakemake(TARGET, "--dry-run", "-q", "rules", *words))


def test_times_and_snakemakes_memory_decide_nothing(prepared: Path) -> None:
    """As in a clone whose pins git has written, and into which results were copied."""
    assert not Path(".snakemake").exists()
    for age, folder in enumerate((pin("digits"), manifest_dir("digits"), data_dir("digits"), DRAWN)):
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (2e9 - age, 2e9 - age))
    assert planned() == {}


def test_what_is_stale_is_made_with_all_that_comes_of_it(prepared: Path) -> None:
    entry = Path("config/datasets/digits.yaml")
    text = entry.read_text(encoding="utf-8")
    entry.write_text(text.replace("seed: 0", "seed: 1"), encoding="utf-8")
    assert planned() == {"fetch": 1, "prepare": 1, "tasks": 1}
    entry.write_text(text, encoding="utf-8")
    assert planned("--forcerun", "prepare") == {"prepare": 1, "tasks": 1}, "what the user forces, too"
    shutil.rmtree(data_dir("digits"))
    assert planned("--forcerun", "tasks") == {"prepare": 1, "tasks": 1}, "and what is missing"


def test_what_comes_of_a_part_comes_of_the_job(prepared: Path) -> None:
    batch, part = ExperimentBatch.load([Path("config/config.yaml")]), DRAWN / file_stem("sigma/onehot")
    assert downstream(batch, ()) == set()
    assert downstream(batch, [part]) == {part, DRAWN}
    assert downstream(batch, [data_dir("digits")]) >= {data_dir("digits"), DRAWN, part}
    assert manifest_dir("digits") not in downstream(batch, [data_dir("digits")])


@pytest.mark.slow
def test_what_comes_out_the_same_is_the_end_of_it(prepared: Path) -> None:
    data, part = data_dir("digits") / RECORD, DRAWN / file_stem("sigma/onehot") / RECORD
    before = data.read_bytes(), part.read_bytes()
    done = snakemake(TARGET, "--forcerun", "prepare")
    assert done.returncode == 0, done.stdout + done.stderr
    assert data.read_bytes() != before[0] and part.read_bytes() == before[1]
    assert planned() == {}
