"""Every method, killed in the middle of a queue, a warm-up, an epoch's assignment, goes on to the same bits."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch

from gessl.bilevel.settings import GesslSettings
from gessl.cluster.machine import Efficiency
from gessl.methods.base import Method
from gessl.training.checkpoint import Owner, load_checkpoint, pack
from gessl.training.pretrain import Run, train
from gessl.training.settings import Science
from tests.bilevel.smooth import METHODS
from tests.methods.tiny import science

STEPS, CHECKPOINT, KILLED = 9, 4, 6  # an epoch takes 3 steps (1 under GeSSL), so the checkpoint falls inside one
OWNER = Owner("tiny-run", "science", "code")


def keeps_most(name: str) -> bool:
    """Whether a method is tried in each run of the suite: those with state of their own, and the plainest one."""
    method = type(METHODS[name])
    return name == "simclr" or method.init_state is not Method.init_state or method.draw is not Method.draw


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
@pytest.mark.parametrize(
    "name", [name if keeps_most(name) else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_a_killed_run_ends_in_the_same_bits(tiny: Path, name: str, gessl: GesslSettings | None) -> None:
    settings = science(name, gessl, STEPS)
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
