"""What a protocol wants of a data set, in the words of the registry."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from gessl.data.registry import dataset
from gessl.data.supply import supply
from gessl.evaluation import step
from gessl.protocols.contract import ANNOTATED, LACKS, Protocol, Want


@dataclass(frozen=True)
class Following(Protocol):
    """Wants boxes that are followed."""

    wants: ClassVar[frozenset[Want]] = frozenset({"boxes", "tracks"})


@dataclass(frozen=True)
class Outlining(Protocol):
    """Wants masks."""

    wants: ClassVar[frozenset[Want]] = frozenset({"masks"})


def refusals(protocol: Protocol, name: str) -> list[str]:
    return [misfit.text for misfit in protocol.misfits(supply(dataset(name)))]


@pytest.mark.parametrize("name", ["otb2015", "mot16", "posetrack18"])
def test_a_data_set_that_has_it_is_taken(name: str) -> None:
    assert refusals(Following(), name) == []


def test_what_is_missing_is_said_in_one_line() -> None:
    assert refusals(Following(), "voc2007") == ["its pictures are annotated with no tracks"]
    assert refusals(Following(), "digits") == ["its pictures are annotated with no boxes and no tracks"]
    assert refusals(Outlining(), "coco2017") == refusals(Outlining(), "davis2017") == []
    assert refusals(Outlining(), "voc2012") == ["its pictures are annotated with no masks"]


def test_who_wants_labels_refuses_annotated_pictures() -> None:
    assert refusals(Protocol(), "coco2017") == [LACKS["labels"]]


def test_the_words_are_the_registrys() -> None:
    assert set(ANNOTATED) == {"boxes", "masks", "tracks", "keypoints", "tags"}
    assert not set(ANNOTATED) & LACKS.keys()


def test_the_annotations_that_it_wants_are_inputs_of_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("results/data/mine")
    folder.mkdir(parents=True)
    for name in ("images.bin", "annotations.npz", "masks.bin"):
        (folder / name).write_bytes(b"")
    monkeypatch.setattr(step, "Step", lambda *_, inputs, **__: inputs)
    monkeypatch.setattr(step, "score_settings", lambda *_: {})
    subject: Any = SimpleNamespace(id="run", files=[Path("weights")], seed=0)
    wanting: Any = step._step(subject, "mine", Following())
    other: Any = step._step(subject, "mine", Protocol())
    assert wanting == [*other, folder / "annotations.npz", folder / "masks.bin"]
