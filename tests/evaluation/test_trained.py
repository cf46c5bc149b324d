"""Protocols that train, in the whole step: killed and resumed, and without features that nobody takes."""

import numpy as np
import pytest

from gessl.errors import UserError
from gessl.evaluation import step as module
from gessl.evaluation.choice import CHOICE
from gessl.layout import scoring_dir
from gessl.protocols import _fine_tuning
from gessl.protocols.progress import Progress
from gessl.tables.scores import read_cards, read_scores
from tests.evaluation.test_step import folder, go
from tests.evaluation.toy import OUTPUTS, RUN
from tests.support.classifiers import small
from tests.support.scored import protocol

CHOOSING = protocol("transfer/kornblith-finetune", steps=2, batch=32, crop=6, resize=7, rates=2, decays=1)
PROBE, TUNED = small("linear/moco-100", epochs=3), small("semi/barlow-1pct", epochs=3)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("one", [PROBE, TUNED], ids=lambda one: one.id)
def test_killed_and_started_again_it_gives_the_same_files(one, project, monkeypatch):
    go([one])
    expected = {name: (folder(one.id) / name).read_bytes() for name in OUTPUTS}
    kept = scoring_dir(RUN, "toy", folder(one.id).name)
    assert not kept.exists()
    (folder(one.id) / "record.json").unlink()
    save, made = Progress.save, []

    def killed(self, epochs, tensors):
        made.append(epochs)
        save(self, epochs, tensors)
        if epochs == 2:
            raise KilledError

    monkeypatch.setattr(Progress, "save", killed)
    with pytest.raises(KilledError):
        go([one])
    assert kept.is_dir()
    go([one])
    assert made == [1, 2, 3]
    assert {name: (folder(one.id) / name).read_bytes() for name in OUTPUTS} == expected
    assert not kept.exists()


@pytest.mark.parametrize("killed", [3, 8, 10])
def test_killed_while_it_chooses_or_refits_it_gives_the_same_files(killed, project, monkeypatch):
    """Four points of two steps, then the refit."""
    go([CHOOSING])
    names = (*OUTPUTS, CHOICE)
    expected = {name: (folder(CHOOSING.id) / name).read_bytes() for name in names}
    (folder(CHOOSING.id) / "record.json").unlink()
    monkeypatch.setattr(_fine_tuning, "KEPT", 1)
    save, made = Progress.save, []

    def stopped(self, steps, tensors):
        made.append(steps)
        save(self, steps, tensors)
        if made == [*range(1, killed + 1)]:
            raise KilledError

    monkeypatch.setattr(Progress, "save", stopped)
    with pytest.raises(KilledError):
        go([CHOOSING])
    go([CHOOSING])
    assert made == [*range(1, 11)]
    assert {name: (folder(CHOOSING.id) / name).read_bytes() for name in names} == expected
    (row,) = read_scores(folder(CHOOSING.id))
    assert (row["protocol"], row["selection"]) == (CHOOSING.name, "val")


def test_rows_tell_the_state_that_was_scored(project):
    go([PROBE])
    rows = {(row["protocol"], row["metric"]): row for row in read_scores(folder(PROBE.id))}
    assert rows[PROBE.name, "accuracy"]["selection"] == rows[PROBE.name, "top5"]["selection"] == "last"
    assert rows[f"{PROBE.name}-best", "accuracy"]["selection"] == "best-on-test"
    assert read_cards(folder(PROBE.id))[f"{PROBE.name}-best"].invalid


def test_no_features_are_made_that_nobody_takes(project, monkeypatch):
    monkeypatch.setattr(module, "embed", lambda *arguments, **more: pytest.fail("a pass was made"))
    go([PROBE])
    monkeypatch.undo()


def test_next_to_others_it_has_the_same_scores(project):
    go([PROBE])
    alone = (folder(PROBE.id) / "outcomes.npz").read_bytes()
    (folder(PROBE.id) / "record.json").unlink()
    go([protocol("knn/5nn-euclid"), PROBE])
    assert (folder(PROBE.id) / "outcomes.npz").read_bytes() == alone
    assert np.isfinite(float(read_scores(folder("knn/5nn-euclid"))[0]["value"]))


def test_an_edited_state_is_refused(project, monkeypatch):
    kept = scoring_dir(RUN, "toy", folder(PROBE.id).name)
    kept.mkdir(parents=True)
    (kept / "epochs.safetensors").write_bytes(b"what is this")
    with pytest.raises(UserError, match=r"^work/scores/.*epochs\.safetensors: cannot be read"):
        go([PROBE])
