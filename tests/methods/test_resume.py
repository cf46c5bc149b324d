"""Every method, killed in the middle of a queue, a warm-up, an epoch's assignment, goes on to the same bits."""

import dataclasses
import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from gessl.bilevel.settings import GesslSettings
from gessl.cluster.machine import Efficiency
from gessl.layout import data_dir
from gessl.nets.backbones import BACKBONES, Backbone
from gessl.nets.vit import ViT
from gessl.training.checkpoint import Owner, load_checkpoint, pack
from gessl.training.pretrain import Run, train
from gessl.training.settings import Science, TrainSettings
from tests.bilevel.smooth import IMAGES, METHODS, N
from tests.support.policies import shipped

STEPS, CHECKPOINT, KILLED = 9, 4, 6  # an epoch takes 3 steps (1 under GeSSL), so the checkpoint falls inside one
OWNER = Owner("tiny-run", "science", "code")


def small_vit(channels: int, size: tuple[int, int]) -> ViT:
    return ViT(channels, size[0], 2, width=12, depth=3, heads=2)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 24 RGB images of 8x8 pixels, prepared by hand; a ViT of its size."""
    monkeypatch.setitem(BACKBONES, "vit-tiny", Backbone(small_vit, frozenset({"tokens"})))
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 8, 8), dtype=np.uint8)
    data = data_dir("tiny")
    data.mkdir(parents=True)
    (data / "record.json").write_text("{}", encoding="utf-8")
    (data / "index.csv").write_text("id,split\n" + "tiny,train\n" * IMAGES, encoding="utf-8")
    np.save(data / "images.npy", images)
    card = {"name": "tiny", "mean": [0.5] * 3, "std": [0.3] * 3, "size": [8, 8], "channels": 3}
    (data / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return tmp_path


def science(name: str, gessl: GesslSettings | None) -> Science:
    method = METHODS[name]
    if name == "w_mse":  # so few hidden units may fall silent that more dimensions could not be whitened
        method = dataclasses.replace(method, dim=3)
    if hasattr(method, "hidden"):  # nor may all of them for an image, whose embedding would have no direction
        method = dataclasses.replace(method, hidden=32)
    if hasattr(method, "queue"):  # of two batches and a half, open from the second epoch on
        method = dataclasses.replace(method, queue=20, **{"queue_start": 1} if hasattr(method, "queue_start") else {})
    views = "digits-crops" if method.crops else "digits-4" if method.views[1] == 4 else "digits"
    backbone = "vit-tiny" if method.needs == "tokens" else "small-conv"
    return Science(
        "tiny", "-", backbone, views, name, method, TrainSettings(STEPS, N, warmup=2), gessl, 0, shipped()[views]
    )


def run_to_the_end(work: Path, settings: Science, killed: int = 0) -> Run:
    """Train in `work`, from its checkpoint if it has one; `killed` by SIGKILL after that step if that is not 0."""
    torch.set_num_threads(1)
    run = Run(settings, torch.device("cpu"), load_checkpoint(work, OWNER, torch.device("cpu")))

    def told() -> str:
        if run.step == killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return ""

    train(run, OWNER, work, Efficiency(checkpoint_every=CHECKPOINT, log_every=1), stop_signal=told)
    return run


@pytest.mark.parametrize(
    "gessl",
    [
        pytest.param(None, id="base", marks=pytest.mark.slow),  # has nothing that the other has not
        pytest.param(GesslSettings(tasks=2, target_steps=1, inner_lr=0.01), id="gessl"),
    ],
)
@pytest.mark.parametrize("name", METHODS)
def test_a_killed_run_ends_in_the_same_bits(tiny: Path, name: str, gessl: GesslSettings | None) -> None:
    settings = science(name, gessl)
    whole, killed = tiny / "whole", tiny / "killed"
    for work in (whole, killed):
        work.mkdir()
    expected = run_to_the_end(whole, settings).checkpoint()

    process = multiprocessing.get_context("fork").Process(target=run_to_the_end, args=(killed, settings, KILLED))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    resumed = load_checkpoint(killed, OWNER, torch.device("cpu"))
    assert resumed is not None
    assert resumed.step == CHECKPOINT

    found = run_to_the_end(killed, settings).checkpoint()
    tensors, wanted = (
        pack(**each.variables._asdict(), optimizer=each.optimizer, inner=each.inner) for each in (found, expected)
    )
    assert tensors.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert torch.equal(tensors[key], tensor), key
