"""A run on views smaller than the images, as W-MSE has it for STL-10: trained, saved, and scored on the centres."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors import safe_open
from torchvision.transforms import v2

from gessl.cli import main
from gessl.data.arrays import open_images
from gessl.data.stores import ArrayStore
from gessl.evaluation import step
from gessl.grid.experiment import Experiment
from gessl.nets.encoder import load_encoder
from gessl.protocols.embed import fitted
from gessl.training.run import Run
from tests.conftest import SMALL

CPU = torch.device("cpu")
VIEWS = {"views": [{"count": 2, "crop_scale": [0.4, 1.0], "size": 6}]}


@pytest.fixture
def cell(prepared: Path):
    Path("config/views/digits-6.yaml").write_text(yaml.safe_dump(VIEWS), encoding="utf-8")
    recipe = {**SMALL["recipe"], "views": "digits-6"}
    asked = {**SMALL, "recipe": recipe, "seeds": [0], "evaluation": ["linear/wmse-v1", "knn/5nn-euclid"]}
    Path("config/config.yaml").write_text(yaml.safe_dump(asked), encoding="utf-8")
    return next(cell for cell in Experiment.load(Path("config/config.yaml")).runs() if cell.variant == "gessl")


def test_it_is_trained_on_views_of_that_size(cell) -> None:
    (batch,) = Run(cell.science, CPU).task(0, 0)
    assert batch.views.shape == (2, 32, 1, 6, 6) and batch.crops is None
    boxes = batch.boxes.flatten(0, 1)
    assert boxes[:, 2:].max() == 8 and (boxes[:, 2:] > 6).any()  # of the images as they are


def test_it_is_scored_on_the_centres(cell, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, embed = [], step.embed
    monkeypatch.setattr(step, "embed", lambda net, images, **more: seen.append(images) or embed(net, images, **more))
    assert main(["pretrain", cell.id]) == 0
    assert main(["evaluate", cell.id]) == 0
    encoder = load_encoder(Path(f"results/runs/{cell.id}/encoder.safetensors"))
    assert encoder.cropped and encoder.size == (6, 6)
    (images,) = seen
    whole = F.interpolate(torch.from_numpy(open_images("digits")[:9]).float(), (7, 7), mode="bilinear", antialias=True)
    expected = v2.functional.center_crop(whole.round().byte(), [6, 6])
    np.testing.assert_array_equal(images[np.arange(9)], expected)
    assert sorted(path.parent.name for path in Path("results/scores").rglob("scores.csv")) == [
        "knn__5nn_euclid",
        "linear__wmse_v1",
    ]


def test_an_encoder_of_whole_images_says_nothing_of_it(prepared: Path) -> None:
    run = next(iter(Experiment.load(Path("config/config.yaml")).runs())).id
    assert main(["pretrain", run]) == 0
    with safe_open(f"results/runs/{run}/encoder.safetensors", framework="pt") as file:
        assert "cropped" not in file.metadata()["gessl"]
    assert not load_encoder(Path(f"results/runs/{run}/encoder.safetensors")).cropped


def test_w_mse_s_sizes() -> None:
    """Resize(70), CenterCrop(64); but bilinear, as all of ours."""
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 96, 96), np.uint8)
    found = fitted(ArrayStore(images), channels=3, size=(64, 64), cropped=True, where="here")
    view = v2.Compose([v2.Resize(70, antialias=True), v2.CenterCrop(64)])
    difference = np.abs(found[np.arange(3)].astype(int) - view(torch.from_numpy(images)).numpy())
    assert found.shape == (3, 3, 64, 64) and difference.max() <= 1  # rounded otherwise
    same = fitted(ArrayStore(images), channels=3, size=(96, 96), cropped=True, where="here")
    assert same.shape == (3, 3, 96, 96)
