"""What our own records call outdated, and why: made by hand from a finished project's records."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gessl.grid.batch import ExperimentBatch
from gessl.grid.outdated import outdated
from gessl.layout import data_dir, file_stem, manifest_dir, run_dir, tasks_dir
from gessl.records import current as module
from gessl.records.record import parse_record, record_id, record_text
from gessl.records.step import Step
from tests.support.toy_project import make_again

CONFIG = Path("config/config.yaml")


@pytest.fixture
def project(prepared: Path) -> Path:
    """Digits, fetched, prepared and drawn for seed 0; no run yet."""
    return prepared


DRAWN = tasks_dir("digits", 0)
SUITE = DRAWN / file_stem("sigma/onehot")


def batch() -> ExperimentBatch:
    return ExperimentBatch.load([CONFIG])


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "record.json"
    record = parse_record(path.read_bytes())
    change(record)
    record["id"] = record_id(record)
    path.write_text(record_text(record), encoding="utf-8")


def test_what_is_current_is_not_named(project: Path) -> None:
    assert outdated(batch()) == {}


def test_other_sources(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = module.step_fingerprint
    monkeypatch.setattr(
        module, "step_fingerprint", lambda step, config: "edited" if step == "prepare" else present(step, config)
    )
    assert outdated(batch()) == {data_dir("digits"): "the sources that its step uses changed since"}


def test_another_lock(project: Path) -> None:
    Path("requirements.lock").write_text("torch==0\n", encoding="utf-8")
    found = outdated(batch())
    assert set(found) == {manifest_dir("digits"), data_dir("digits"), DRAWN}
    assert set(found.values()) == {"requirements.lock changed since"}


def test_other_settings(project: Path) -> None:
    rewrite(DRAWN, lambda record: record["config"]["protocols"].pop())
    assert outdated(batch()) == {DRAWN: "its settings changed since"}


def test_other_settings_of_one_protocol(project: Path) -> None:
    rewrite(SUITE, lambda record: record["config"]["settings"].update(tasks=7))
    assert outdated(batch()) == {DRAWN: "its settings changed since"}, "of a bundle, its own folder is named"


def test_a_part_that_was_made_again(project: Path) -> None:
    rewrite(SUITE, lambda record: record.update(host="another"))
    assert outdated(batch()) == {DRAWN: f"{SUITE}/tasks.npz was made again since"}


def edit_entry(name: str, old: str, new: str) -> None:
    path = Path(f"config/datasets/{name}.yaml")
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_data_set_s_own_entry_and_nothing_of_the_others(project: Path) -> None:
    """Neither a new data set, nor a changed, broken or lost one, has anything of another made again."""
    folder = Path("config/datasets")
    (folder / "new.yaml").write_bytes((folder / "digits.yaml").read_bytes())
    edit_entry("cifar10", "flip: true", "flip: false")
    edit_entry("stl10", "flip: true", "flap: true")
    (folder / "glyphs.yaml").unlink()
    assert outdated(batch()) == {}
    edit_entry("digits", "seed: 0", "seed: 1")
    found = outdated(batch())
    assert found == dict.fromkeys((manifest_dir("digits"), data_dir("digits")), "its settings changed since")


def test_a_run_whose_view_policy_was_edited(project: Path) -> None:
    (run, cell), *_ = batch().runs.items()
    folder = run_dir(run)
    with Step("pretrain", run, folder, inputs=[], config=asdict(cell.science), seed=0):
        pass
    assert outdated(batch()) == {}
    path = Path("config/views/digits.yaml")
    text = path.read_text(encoding="utf-8")
    Path("config/views/glyphs.yaml").write_text(text, encoding="utf-8")
    path.write_text(text + "# a remark\n", encoding="utf-8")
    assert outdated(batch()) == {}
    path.write_text(text.replace("blur_prob: 0.3", "blur_prob: 0.25"), encoding="utf-8")
    assert run in batch().runs
    assert outdated(batch()) == {folder: "its settings changed since"}


def test_an_input_that_was_made_again(project: Path) -> None:
    rewrite(data_dir("digits"), lambda record: record.update(host="another"))
    found = outdated(batch())
    assert set(found) == {DRAWN}
    assert "was made again since" in found[DRAWN]


def test_an_input_that_was_made_again_to_the_same_bytes(project: Path) -> None:
    for folder in (manifest_dir("digits"), data_dir("digits"), data_dir("digits"), SUITE):
        make_again(folder)
        assert outdated(batch()) == {}
    make_again(data_dir("digits"), {"images.npy": b"others"})
    assert outdated(batch()) == {}, "tasks are drawn from the index"
    make_again(data_dir("digits"), {"index.csv": b"others"})
    assert outdated(batch()) == {DRAWN: "results/data/digits/index.csv was made again since"}


def test_another_pin(project: Path) -> None:
    pin = Path("data/raw/digits.dvc")
    pin.write_text(pin.read_text(encoding="utf-8") + "# a remark\n", encoding="utf-8")
    assert set(outdated(batch()).values()) == {"data/raw/digits.dvc changed since"}


def test_a_broken_record_is_left_to_the_audit(project: Path) -> None:
    (data_dir("digits") / "record.json").write_text(json.dumps({"id": 1}), encoding="utf-8")
    assert outdated(batch()) == {}
