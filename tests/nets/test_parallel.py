"""What several processes cannot do is refused in one line (that they agree: tests/methods/test_processes.py)."""

import pytest
import torch

from gessl.errors import UserError
from gessl.methods import learner, simclr
from gessl.methods.learner import Learner
from gessl.nets import parallel
from gessl.nets.encoder import Encoder


def test_shares_are_equal_and_cover_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "processes", lambda: 3)
    found = []
    for rank in range(3):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        found += range(12)[parallel.share(12)]
    assert found == list(range(12))
    with pytest.raises(UserError, match=r"^batch: 10 images cannot be shared by 3 processes; give a multiple of 3$"):
        parallel.share(10)


def test_compiled_passes_stay_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "processes", lambda: 2)
    encoder = Encoder("small-conv", [0.5], [0.25], (8, 8))
    with pytest.raises(UserError, match=r"^efficiency\.compile: "):
        Learner(simclr.SimCLR(hidden=8, dim=4), encoder, torch.Generator().manual_seed(0), compiled=True)
