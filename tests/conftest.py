"""What all tests share: one thread per worker, and a small project with prepared digits."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)
# processes that tests start: no thread pools beyond the two workers, nobody to phone
os.environ |= {"OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}

# no result of a test has to outlive a power cut, and to wait for the disk takes half the time of a made-up project
os.fsync = lambda descriptor: None


LONGEST = ("tests/workflow/", "tests/audit/test_replay", "tests/methods/", "tests/cluster/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # a file is one worker's: begin with the longest, or one works alone in the end
    items.sort(key=lambda item: not any(part in item.nodeid for part in LONGEST))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU: make gpu-check"))


SMALL = {
    "name": "small",
    "title": "A small experiment",
    "datasets": ["digits"],
    "methods": {"simclr": {"hidden": 16, "dim": 8}},
    "seeds": [0, 1],
    "recipe": {"train": {"steps": 12, "batch": 32, "warmup": 2, "lr": 0.003}},
    "variants": {
        "base": {},
        "gessl": {"gessl": {"inner_steps": 1, "target_steps": 1, "tasks": 2, "inner_lr": 0.05}},
    },
    "comparisons": [{"treatment": "gessl", "control": "base", "label": "equal outer steps"}],
    "evaluation": [
        "linear/wmse-v1",
        "knn/5nn-euclid",
        {"protocol": "fewshot/proto-v1", "episodes": 20},
        {"protocol": "scarce/linear-v1", "draws": 2},
        {"protocol": "sigma/onehot", "tasks": 4},
        {"protocol": "sigma/finetuned", "tasks": 4},
    ],
    "efficiency": {"checkpoint_every": 3, "log_every": 1},
}


def copy_project(to: Path) -> Path:
    """The repository's files that a workflow needs, raw digits where DVC would put them, and the small experiment."""
    for folder in ("config", "workflow"):
        shutil.copytree(ROOT / folder, to / folder)
    for name in ("Snakefile", "requirements.lock"):
        shutil.copy(ROOT / name, to / name)
    bundled = importlib.util.find_spec("sklearn")
    assert bundled is not None
    assert bundled.origin is not None
    (to / "data/raw/digits").mkdir(parents=True)
    shutil.copy(Path(bundled.origin).parent / "datasets/data/digits.csv.gz", to / "data/raw/digits")
    shutil.copy(ROOT / "data/raw/digits.dvc", to / "data/raw")
    (to / ".dvc").mkdir()
    (to / ".dvc/config").write_text(
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n", encoding="utf-8"
    )
    import yaml  # which a bare GPU machine, where some of these tests run, may lack

    (to / "config/config.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    return to


@pytest.fixture
def unprepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configuration and pins of this checkout, without results that lie in it; it is the working directory."""
    project = tmp_path / "unprepared"
    (project / "data/raw").mkdir(parents=True)
    for name in ("config", "requirements.lock", *(f"data/raw/{pin.name}" for pin in (ROOT / "data/raw").glob("*.dvc"))):
        (project / name).symlink_to(ROOT / name)
    monkeypatch.chdir(project)
    return project


@pytest.fixture(scope="session")
def prepared_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose digits are fetched, prepared and drawn into tasks for seed 0."""
    from gessl.cli import main

    project, before = copy_project(tmp_path_factory.mktemp("template")), Path.cwd()
    os.chdir(project)
    try:
        for words in (["fetch", "digits"], ["prepare", "digits"], ["tasks", "digits", "0"]):
            assert main(words) == 0
    finally:
        os.chdir(before)
    return project


@pytest.fixture
def prepared(prepared_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared project; it is the working directory."""
    project = shutil.copytree(prepared_template, tmp_path / "project")
    monkeypatch.chdir(project)
    return project
