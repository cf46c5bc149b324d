"""A training that is killed after any epoch goes on to the same bits; what is kept is checked before it is used."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gessl.errors import UserError
from gessl.protocols import progress as module
from gessl.protocols._fitting import Fitting
from gessl.protocols.progress import FILE, NOWHERE, Progress
from tests.support.classifiers import CPU, SEED, small, target_of, trained


class KilledError(Exception):
    pass


class Killed(Progress):
    """As one that is killed right after it has kept that number of epochs."""

    def __init__(self, folder, epochs):
        super().__init__(folder, "me")
        self._last = epochs

    def save(self, epochs, tensors):
        super().save(epochs, tensors)
        if epochs == self._last:
            raise KilledError


@pytest.mark.parametrize("name", ["linear/moco-100", "semi/swav-1pct", "semi/simclr-10pct"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_killed_training_goes_on_to_the_same_bits(name, epochs, encoder, images, tmp_path, monkeypatch):
    one, target = small(name), target_of(images)
    whole, parts = Progress(tmp_path / "whole", "me"), tmp_path / "parts"
    expected = trained(one, encoder, target, whole)
    with pytest.raises(KilledError):
        trained(one, encoder, target, Killed(parts, epochs))
    begun, epoch = [], Fitting.epoch
    monkeypatch.setattr(Fitting, "epoch", lambda self, number: (begun.append(number), epoch(self, number)))
    found = trained(one, encoder, target, Progress(parts, "me"))
    assert begun == [*range(epochs, 3)]
    assert found.keys() == expected.keys()
    for key, score in found.items():
        np.testing.assert_array_equal(score.outcomes, expected[key].outcomes)
    assert (parts / FILE).read_bytes() == (tmp_path / "whole" / FILE).read_bytes()


def test_nothing_is_kept_nowhere(encoder, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained(small("linear/moco-100", epochs=1), encoder, target_of(images), NOWHERE)
    assert not list(tmp_path.iterdir())
    assert NOWHERE.load(CPU) is None


KEPT = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.tensor(7), "c": torch.tensor([True, False])}


def test_what_was_kept_comes_back(tmp_path):
    one = Progress(tmp_path / "new", "me")
    assert one.load(CPU) is None
    one.save(3, KEPT)
    one.save(4, KEPT)
    done = one.load(CPU)
    assert done.epochs == 4 and done.tensors.keys() == KEPT.keys()
    assert all(torch.equal(done.tensors[name], tensor) for name, tensor in KEPT.items())
    assert [path.name for path in (tmp_path / "new").iterdir()] == [FILE]


def test_of_other_settings_nothing_is_taken(tmp_path, capsys):
    Progress(tmp_path, "me").save(3, KEPT)
    assert Progress(tmp_path, "you").load(CPU) is None
    assert "of other settings, inputs or sources; training starts from its first epoch" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_what_is_damaged_is_refused_in_one_line(damage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("work/scores/run/data/protocol")
    one = Progress(folder, "me")
    one.save(3, KEPT)
    data = (folder / FILE).read_bytes()
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    (folder / FILE).write_bytes({"cut": data[:-3], "flipped": flipped, "empty": b"", "text": b"hello there"}[damage])
    with pytest.raises(UserError, match=rf"^{folder}/{FILE}: cannot be read .*start again$") as error:
        one.load(CPU)
    assert "\n" not in str(error.value)


def test_a_full_disk_leaves_what_was_kept_before(tmp_path, monkeypatch):
    one = Progress(tmp_path, "me")
    one.save(3, KEPT)

    def full(path, write):
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(module, "atomic_write", full)
    with pytest.raises(UserError, match=rf"{FILE}: cannot be written .No space left on device.; make room"):
        one.save(4, KEPT)
    monkeypatch.undo()
    assert one.load(CPU).epochs == 3


def test_each_draw_is_keyed_by_the_seed(encoder, images):
    one, target = small("linear/moco-100", epochs=1), target_of(images)
    heads = []
    for seed in (SEED, SEED, SEED + 1):
        fitting = Fitting(one, encoder, target, seed)
        fitting.epoch(0)
        heads.append(fitting.head.weight)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
