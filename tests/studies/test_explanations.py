"""The tested explanations, on a grid of two steps: what they train, and that they can be refuted."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import yaml

from gessl.cli import main
from gessl.data.readers import open_raw
from gessl.data.registry import dataset
from gessl.grid.experiment import Experiment
from gessl.methods.base import Batch
from gessl.methods.cpc import CPC, patches
from gessl.methods.dim import DIM
from gessl.training.run import Run
from gessl.training.settings import Science
from studies import explanations, learn, study
from studies.explanations import VIEWINGS, Crossing, Explanation, Viewing, fine_tuned, pretrained
from studies.learn import untrained
from tests.conftest import SMALL

CONFIG = Path("config/config.yaml")


@pytest.fixture
def experiment(prepared: Path) -> Experiment:
    methods = {"methods": {"dim": {"hidden": 16, "dim": 8, "units": 32}, "cpc": {"hidden": 16, "dim": 8}}}
    protocols = ["scarce/linear-v1"]
    CONFIG.write_text(yaml.safe_dump({**SMALL, **methods, "seeds": [0], "evaluation": protocols}), encoding="utf-8")
    return Experiment.load(CONFIG)


def test_crossing_scores_a_view_with_the_other_ones_positions() -> None:
    draws = torch.Generator().manual_seed(0)
    outputs = {
        "global": torch.randn(2, 5, 7, generator=draws, dtype=torch.float64),
        "local": torch.randn(2, 5, 4, 7, generator=draws, dtype=torch.float64),
    }
    swapped = {**outputs, "local": torch.stack([outputs["local"][1], outputs["local"][0]])}
    loss = Crossing().loss(outputs, {})
    assert loss == DIM().loss(swapped, {})
    assert loss != DIM().loss(outputs, {})


def test_training_here_is_that_of_the_pipeline(experiment: Experiment) -> None:
    cell = next(cell for cell in experiment.runs() if cell.science.method_name == "dim" and cell.variant == "base")
    assert main(["pretrain", cell.id]) == 0
    assert main(["evaluate", cell.id]) == 0
    (row,) = (row for name, row in learn.methods(experiment).items() if name == "dim")
    assert row["accs"] == [pytest.approx(pretrained(cell.science), abs=1e-4)]


def test_viewing_is_cpc_but_for_what_it_takes_for_patches(experiment: Experiment) -> None:
    """Given the patches of two views in place of views, it gives what CPC gives of the two."""
    cell = next(cell for cell in experiment.runs() if cell.science.method_name == "cpc" and cell.variant == "base")
    encoder = untrained(cell.science)
    net = torch.nn.ModuleDict({"encoder": encoder, **CPC(hidden=8, dim=4).heads(encoder.features)}).eval()
    views = torch.rand(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    cut = torch.cat([patches(images).transpose(0, 1) for images in views])
    assert len(cut) == VIEWINGS
    with torch.inference_mode():
        expected = CPC(hidden=8, dim=4).forward(net, Batch(views))
        found = Viewing(hidden=8, dim=4).forward(net, Batch(cut))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)


def test_viewing_sees_another_view_in_each_patch(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    def distinct(science: Science) -> int:
        (batch,) = Run(science, torch.device("cpu")).task(0, 0)
        return len({view.numpy().tobytes() for view in batch.views})

    monkeypatch.setattr(explanations, "pretrained", distinct)
    cell = next(cell for cell in experiment.runs() if cell.science.method_name == "cpc")
    assert explanations.viewing([cell.science], []).arms["views in place of patches"] == [VIEWINGS]


def test_fine_tuning_learns_the_labels(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    science = next(iter(experiment.runs())).science
    monkeypatch.setattr(explanations, "STEPS", 1)
    before = fine_tuned(untrained(science), science)
    monkeypatch.setattr(explanations, "STEPS", 20)
    after = fine_tuned(untrained(science), science)
    assert after > max(50, before + 20)


def test_what_is_refuted_is_told(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {name: Explanation(name, "so", {"a": [70.0, 71], "b": [60.0, 62]}) for name in ("dim", "cpc")}
    assert found["dim"].holds
    found["cpc"] = replace(found["cpc"], arms={"a": [60.0, 62], "b": [60.0, 61]})
    given: dict[str, list[str]] = {}

    def test(sciences: list[object], runs: list[str]) -> Explanation:
        name = sciences[0].method_name  # type: ignore[attr-defined]
        given[name] = runs
        return found[name]

    monkeypatch.setattr(explanations, "TESTS", {"dim": test, "cpc": test, "mae": test})
    assert explanations.main([str(CONFIG)]) == 0
    out = capsys.readouterr().out
    assert "| dim | so | a: 70.5 ± 0.7, b: 61.0 ± 1.4 | holds |" in out
    assert {name: [run.split("-")[1] for run in runs] for name, runs in given.items()} == {
        "dim": ["dim"],
        "cpc": ["cpc"],
    }
    file = Path("studies/out/explanations/explanations.json")
    report = json.loads(file.read_text(encoding="utf-8"))
    assert [row["holds"] for row in report["explanations"]] == [True, False]
    assert study.main([str(file)]) == 1
    assert capsys.readouterr().err == "explanations: cpc: refuted\n"


def test_free_colours_change_colours_alone(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, folder = dataset("glyphs-ten"), Path("data/raw/glyphs-ten")
    folder.mkdir()
    for file in entry.files:
        shutil.copy(Path(matplotlib.get_data_path()) / file.source.removeprefix("matplotlib:"), folder)
    few = np.concatenate([chunk.images for chunk in open_raw(entry).chunks()]).astype(float)
    monkeypatch.setattr(explanations, "open_images", lambda name: few)
    free = explanations.free_colours("glyphs-ten").astype(float)
    assert few.shape == free.shape
    papers = [images[..., 0, 0].std(0).min() / 255 for images in (few, free)]
    assert papers[0] < 0.04
    assert papers[1] > 0.2
    edges = [np.abs(np.diff(images, axis=-1)).sum(1).reshape(len(images), -1) for images in (few, free)]
    same = [np.corrcoef(a, b)[0, 1] for a, b in zip(*edges, strict=True)]
    other = [np.corrcoef(a, b)[0, 1] for a, b in zip(edges[0], np.roll(edges[1], 1, 0), strict=True)]
    assert np.median(same) > 0.9 > 0.8 > np.median(other)
