"""Two processes with half of a mini-batch each find what one finds with all of it, to second order."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.bilevel.smooth import KINDS, METHODS
from tests.conftest import ROOT
from tests.methods.one_of_two import ON_EVERY_METHOD, SETTINGS, gradients


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder: Path = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "tests.methods.one_of_two"]
    both = [
        subprocess.Popen([*command, str(rank), str(folder)], cwd=ROOT, stderr=subprocess.PIPE, encoding="utf-8")
        for rank in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_equal_one_on_the_joined_batch(name: str, found: list[dict]) -> None:
    alone = gradients(name)
    for rank in range(2):
        together = found[rank][name]
        assert together.keys() == alone.keys()
        for label in SETTINGS if name in KINDS else ON_EVERY_METHOD:
            keys = [key for key in alone if key.startswith(f"{label}.gradient.")]
            whole = torch.cat([alone[key].flatten() for key in keys])
            theirs = torch.cat([together[key].flatten() for key in keys])
            assert (theirs - whole).norm() < 1e-9 * whole.norm()
        for key, tensor in alone.items():
            if ".gradient." not in key:
                assert torch.allclose(together[key], tensor, rtol=1e-9, atol=1e-12), key
