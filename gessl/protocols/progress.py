"""What a protocol that trains has after each epoch, kept so that a job that was killed goes on to the same bits.

One file, replaced as a whole: `work/scores/<run>/<target>/<protocol>/epochs.safetensors` holds named tensors, its
metadata how many epochs they are of, and whose: a hash of the settings, inputs and sources of the score. Of another one
it is not taken, and what is damaged is refused. Generators need no saving: each draw is keyed by (seed, purpose, epoch,
step).
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gessl.advice import remake
from gessl.errors import UserError
from gessl.files import atomic_write
from gessl.notices import say

FILE = "epochs.safetensors"
Tensors = dict[str, Tensor]


class Done(NamedTuple):
    """What there is after `epochs` epochs."""

    epochs: int
    tensors: Tensors


class Progress:
    """Of one protocol, on one subject and target.

    Args:
        folder: where to keep it; None keeps nothing.
        owner: whose it is.
    """

    def __init__(self, folder: Path | None = None, owner: str = "") -> None:
        self._folder, self._owner = folder, owner

    def save(self, epochs: int, tensors: Tensors) -> None:
        """Replace what was kept.

        Raises:
            UserError: the disk is full or cannot be written; what was kept before stays in place.
        """
        from safetensors.torch import save

        if self._folder is None:
            return
        here = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}  # none shared
        about = json.dumps({"owner": self._owner, "epochs": epochs, "sha256": _hash(here)}, sort_keys=True)
        data, path = save(here, metadata={"gessl": about}), self._folder / FILE
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            atomic_write(path, lambda file: file.write(data))
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); make room and start again: it goes on from the epoch "
                "before"
            ) from error

    def load(self, device: torch.device) -> Done | None:
        """What was kept, on `device`; None where nothing was.

        Raises:
            UserError: it is damaged.
        """
        from safetensors import SafetensorError, safe_open

        path = self._folder / FILE if self._folder else None
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["gessl"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            owner, epochs, digest = about["owner"], int(about["epochs"]), about["sha256"]
            if digest != _hash(tensors):
                raise ValueError("altered since it was saved")
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); {remake(path.parent, 'start again')}") from None
        if owner != self._owner:
            say(f"{path}: of other settings, inputs or sources; training starts from its first epoch")
            return None
        return Done(epochs, {name: tensor.to(device) for name, tensor in tensors.items()})


NOWHERE = Progress()


def _hash(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
