"""What a protocol is: how an encoder is scored on a data set.

`gessl/protocols/<family>__<name>.py` holds one subclass of `Protocol`, `config/protocols/<family>__<name>.yaml` its
values and where they come from; its id is `<family>/<name>`, with hyphens for the underscores of the file's name.
Nothing else needs to know of a new protocol.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gessl.data.fields import Kind
from gessl.data.stores import Store
from gessl.data.supply import Supply
from gessl.layout import protocol_id
from gessl.protocols.pools import Pool
from gessl.protocols.progress import NOWHERE, Progress
from gessl.settings import Misfit, Settings
from gessl.tables.scores import Card, Score

Arrays = Mapping[str, NDArray[Any]]
Want = Literal[
    "labels", "shared classes", "runs", "boxes", "masks", "tracks", "keypoints", "tags", "encoder", "features"
]
ABILITIES = frozenset({"encoder", "features"})
"""What a subject may have of what protocols want: an encoder that can be trained further, and features."""
Choice = Mapping[str, float | Sequence[float]]
LACKS = {
    "labels": "its test split has no labelled images",
    "shared classes": "no class of its test split has labelled training images",
    "runs": "it holds no published tasks (split rule runs)",
}
ANNOTATED = get_args(Kind)
"""What a data set's entry says of its annotations, in the same words."""


class OddTasksError(ValueError):
    """Task files that are not what the protocol draws."""


class Tasks(NamedTuple):
    """What a protocol draws of a data set: arrays to be written, and facts about them for people (JSON)."""

    arrays: dict[str, NDArray[Any]]
    facts: dict[str, Any]


class Subject(NamedTuple):
    """What is scored.

    Attributes:
        encoder: maps images in [0, 1] [B, C, H, W] to features [B, F]; in eval mode, and it must stay as it is.
        features: those of all images of the target, float32 [n, F], un-augmented; on the device to compute on. None at
            all, [0, 0], where no protocol of the job takes any.
        progress: where a protocol that trains keeps what it has after each epoch.
    """

    encoder: nn.Module
    features: Tensor
    progress: Progress = NOWHERE


NO_TAGS = torch.empty(0, 0, dtype=torch.int8)


class Target(NamedTuple):
    """The data set that a subject is scored on.

    Attributes:
        images: of all splits, as large as the encoder takes them; read when they are asked for. Crops of any size can
            be cut out of them as they are stored (`Store.resized`, `Store.views`).
        labels: class numbers [n]; -1 where there is none.
        train, val, test: positions of the labelled images of a split; of the tagged ones, for who wants tags.
        classes: how many classes the data set has.
        name: of the data set.
        tags: whether an image shows an object of a category, int8 [n, categories]: 1, -1, or 0 where nobody says; none
            at all, [0, 0], for who does not want them.
    """

    images: Store
    labels: Tensor
    train: Tensor
    val: Tensor
    test: Tensor
    classes: int
    name: str
    tags: Tensor = NO_TAGS


@dataclass(frozen=True)
class Protocol(Settings):
    """How an encoder is scored. Its fields are its settings, with the values of its yaml.

    Attributes:
        wants: what it takes of the target (labels in the test split; classes that train and test share; published
            tasks; annotations: boxes, masks, tracks, keypoints, tags) and of the subject: an encoder to train on or to
            fine-tune, features where it says so or says nothing of an encoder.
        free: the fields that an experiment may set. The others are what the id stands for: other values are another
            protocol, with a file and a yaml of its own.
        heavy: whether it is a job of its own, for which `resources.heavy` is reserved: one that trains, say. The others
            of a subject and a target share a job.
    """

    wants: ClassVar[frozenset[Want]] = frozenset({"labels"})
    free: ClassVar[frozenset[str]] = frozenset()
    heavy: ClassVar[bool] = False

    @property
    def id(self) -> str:
        """`<family>/<name>`."""
        return protocol_id(type(self).__module__.rpartition(".")[2])

    def cards(self) -> dict[str, Card]:
        """What its numbers mean, by the id that they are reported under: its own, or one that tells its settings."""
        raise NotImplementedError

    def misfits(self, given: Supply) -> Iterator[Misfit]:
        """Why it cannot be scored on data that give no more than that; numbers that may be lowered are named."""
        if "labels" in self.wants and not any(given.classes["test"]):
            yield Misfit((), LACKS["labels"])
        elif "shared classes" in self.wants and not given.shared:
            yield Misfit((), LACKS["shared classes"])
        if "runs" in self.wants and not given.runs:
            yield Misfit((), LACKS["runs"])
        lacking = [kind for kind in ANNOTATED if kind in self.wants and kind not in given.annotations]
        if lacking:
            yield Misfit((), f"its pictures are annotated with no {' and no '.join(lacking)}")

    def draw(self, pools: Mapping[str, Pool], seed: int) -> Tasks | None:
        """Tasks of a data set under a seed, the same for all subjects; None for a protocol without any.

        Args:
            pools: labelled images by split: `train`, `val` and `test`.
            seed: of the runs that will be scored on them.

        Raises:
            UserError: there are too few images or classes.
        """
        return None

    def choose(self, subject: Subject, target: Target, seed: int) -> Choice | None:
        """Choose settings on the val split; None for a protocol that chooses nothing.

        The test split is closed to it: no position, features of NaN, labels of -1, tags of 0, images that cannot be
        read. What it chose is in a file before `score` opens the test split.

        Args:
            subject, target: as of `score`, but of labelled (or tagged) train and val images alone.
            seed: as of `score`.

        Returns:
            finite numbers by name, of which one or more say what was chosen, and others why.

        Raises:
            UserError: there is too little to choose on.
        """
        return None

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Score a subject on a target.

        Args:
            subject: what is scored.
            target: what it is scored on.
            tasks: what `draw` drew, and what `choose` chose.
            seed: of the subject; for whatever is drawn while scoring.

        Raises:
            UserError: there is too little to score it on.
        """
        raise NotImplementedError


def can_score(protocol: Protocol, abilities: Set[str]) -> bool:
    """Whether a subject with these of `ABILITIES` has what a protocol wants of it."""
    return protocol.wants & ABILITIES <= abilities


def takes_features(protocol: Protocol) -> bool:
    """Whether a protocol takes features of all images of the target."""
    return "features" in protocol.wants or "encoder" not in protocol.wants


def draws_tasks(protocol: Protocol) -> bool:
    """Whether a protocol draws tasks."""
    return type(protocol).draw is not Protocol.draw


def chooses(protocol: Protocol) -> bool:
    """Whether a protocol chooses settings on val."""
    return type(protocol).choose is not Protocol.choose
