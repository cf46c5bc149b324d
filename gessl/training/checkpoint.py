"""Checkpoints of an unfinished run: all state, atomic, bound to the run, to the code and to their own hash.

`work/<run>/step-<n>.safetensors` holds parameters, buffers, method state and optimiser as named tensors;
`work/<run>/checkpoint.json` names it, last. Random generators need no saving: each draw's generator is keyed by
(seed, purpose, step), so the step is their state.
"""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from gessl.advice import move_away, redo, remake
from gessl.errors import UserError
from gessl.files import atomic_json, atomic_write, read_json, sha256_file
from gessl.methods.learner import Variables

POINTER = "checkpoint.json"
STATE = "checkpoint"  # key of the metadata in a checkpoint that is a result
Tensors = dict[str, Tensor]


class Checkpoint(NamedTuple):
    """The state after `step` outer steps; `optimizer` holds "<parameter>.<slot>", `inner` what the inner rate is by."""

    step: int
    variables: Variables
    optimizer: Tensors
    inner: Tensors


class Owner(NamedTuple):
    """Whose a checkpoint is: the run's id, the hash of its settings, and the fingerprint of the code that trains it."""

    run: str
    science: str
    code: str


def pack(**groups: Tensors) -> Tensors:
    """One flat dict of contiguous CPU tensors, "params.<name>" and so on, by the names of `groups`."""
    return {
        f"{group}.{name}": tensor.detach().cpu().contiguous()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }


def _packed(checkpoint: Checkpoint) -> Tensors:
    return pack(**checkpoint.variables._asdict(), optimizer=checkpoint.optimizer, inner=checkpoint.inner)


def save_checkpoint(folder: Path, owner: Owner, checkpoint: Checkpoint) -> None:
    """Write the checkpoint, point to it, then drop the one before.

    Raises:
        UserError: the disk is full or cannot be written; the checkpoint before stays in place.
    """
    path = folder / f"step-{checkpoint.step:08d}.safetensors"
    tensors = _packed(checkpoint)
    data = save(tensors)
    try:
        atomic_write(path, lambda file: file.write(data))
        meta = {**owner._asdict(), "step": checkpoint.step, "file": path.name, "sha256": sha256_file(path)}
        # in which order: sums over all parameters (norms, inner products) go by it, and the file's is another
        atomic_json(folder / POINTER, {**meta, "tensors": list(tensors)})
    except OSError as error:
        raise UserError(
            f"{path}: cannot write the checkpoint ({error.strerror}); make room and start the run again: "
            "it goes on from the checkpoint before"
        ) from error
    for old in folder.glob("step-*.safetensors"):
        if old != path:
            old.unlink()


def _anothers(found: Owner, owner: Owner, folder: Path) -> str:
    """What makes the checkpoint of `found` in `folder` none of `owner`, and what to do."""
    if found.run != owner.run:
        return f"belongs to run {found.run}, not to {owner.run}; {move_away(folder, 'start again')}"
    if found.science != owner.science:
        return f"belongs to a run of the same id with other settings; {move_away(folder, 'start again')}"
    again = move_away(folder, "start the run anew, or go back to that code")
    return f"made by other code, so going on from it would give a run of two halves; {again}"


def load_checkpoint(folder: Path, owner: Owner, device: torch.device) -> Checkpoint | None:
    """The last checkpoint of `owner` in `folder`, on `device`; None where there is none.

    Raises:
        UserError: it was altered, belongs to another run (by id or by settings), or was made by other code.
    """
    pointer = folder / POINTER
    if not pointer.is_file():
        return None
    advice = remake(folder, "start the run anew")
    try:
        meta = read_json(pointer)
        step, path, digest = int(meta["step"]), folder / Path(meta["file"]).name, meta["sha256"]
        found, names = Owner(meta["run"], meta["science"], meta["code"]), [str(name) for name in meta["tensors"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{pointer}: not readable ({error}); {advice}") from None
    if found != owner:
        raise UserError(f"{pointer}: {_anothers(found, owner, folder)}")
    if not path.is_file() or sha256_file(path) != digest:
        raise UserError(f"{path}: missing or altered since it was saved; {advice}")
    try:
        tensors = load(path.read_bytes())
    except SafetensorError as error:
        raise UserError(f"{path}: not readable ({error}); {advice}") from None
    try:
        return _unpacked(step, names, tensors, device)
    except ValueError as error:
        raise UserError(f"{pointer}: {error} than {path} holds; {advice}") from None


def _unpacked(step: int, names: list[str], tensors: Tensors, device: torch.device) -> Checkpoint:
    """The checkpoint of tensors, in the order of `names`."""
    groups: dict[str, Tensors] = {"params": {}, "buffers": {}, "state": {}, "optimizer": {}, "inner": {}}
    if set(names) != tensors.keys() or any(name.partition(".")[0] not in groups for name in names):
        raise ValueError("names other tensors")
    for name in names:
        group, _, rest = name.partition(".")
        groups[group][rest] = tensors[name].to(device)
    variables = Variables(groups["params"], groups["buffers"], groups["state"])
    return Checkpoint(step, variables, groups["optimizer"], groups["inner"])


def save_state(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as a result: one file, whose metadata hold the step and the order of the tensors."""
    tensors = _packed(checkpoint)
    facts = json.dumps({"step": checkpoint.step, "tensors": list(tensors)})
    path.write_bytes(save(tensors, metadata={STATE: facts}))


def load_state(path: Path, device: torch.device) -> Checkpoint:
    """The checkpoint that `save_state` wrote, on `device`.

    Raises:
        UserError: the file is no such one.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()[STATE])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        return _unpacked(int(facts["step"]), [str(name) for name in facts["tensors"]], tensors, device)
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path}: not readable ({error!r:.200}); {redo(path.parent)}") from None
