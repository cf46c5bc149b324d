"""Branches: runs that go on from another one, the trunk, and so share its weights, batches and optimiser's state.

Arms that leave one trunk differ by what they do, and not by what came before: the standard deviation of their paired
differences is a fraction of that of separate runs. A trunk is a run that ends early (`Science.stops_at`) and leaves its
whole state as a result. From it go on its branches, whose settings are others, and the run that it is the beginning of,
to the same bits as without it.
"""

import shutil
from pathlib import Path

import torch

from gessl.errors import UserError
from gessl.identity import require_science
from gessl.layout import CHECKPOINT, run_dir
from gessl.methods.learner import Variables
from gessl.tables.metrics import METRICS
from gessl.training.checkpoint import Checkpoint, Tensors, load_state
from gessl.training.settings import Science


def trunk_files(trunk: str | None) -> list[Path]:
    """What a run reads of its trunk; nothing without one."""
    return [run_dir(trunk) / name for name in (CHECKPOINT, METRICS, "config.json")] if trunk else []


def trunk_state(trunk: str, science: Science, device: torch.device) -> Checkpoint:
    """The state that `trunk` left, for a run of `science`.

    Raises:
        UserError: it is another run than the branch is to leave, or its state cannot be read, or is of another step.
    """
    if science.start:
        require_science(trunk, science.start.science)
    path = run_dir(trunk) / CHECKPOINT
    found = load_state(path, device)
    steps = {science.start.step} if science.start else range(science.end)
    if found.step not in steps:
        raise UserError(f"{path}: of step {found.step}, from which this run does not go on; run the workflow again")
    return found


def copy_metrics(trunk: str, work: Path) -> None:
    """Let the metrics of a run begin with those of its trunk."""
    work.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run_dir(trunk) / METRICS, work / METRICS)


def branched(state: Checkpoint, fresh: Variables, keeps_optimizer: bool) -> Checkpoint:
    """The state of a trunk as that of a branch.

    Parameters that the scheme adds (inner rates that are learnt) start fresh, with zeros for their optimiser's state;
    those that it does without are left out. The inner rate is measured anew.

    Args:
        state: of the trunk.
        fresh: the variables that a run of the branch's settings starts with.
        keeps_optimizer: whether the optimiser's state goes on.
    """
    old, device = state.variables, next(iter(state.variables.params.values())).device
    params = {name: old.params.get(name, tensor.to(device)) for name, tensor in fresh.params.items()}
    slots: Tensors = {}
    if keeps_optimizer:
        for kind in dict.fromkeys(key.rpartition(".")[2] for key in state.optimizer):
            for name, tensor in params.items():
                zero = torch.zeros(()) if kind == "step" else torch.zeros_like(tensor)
                slots[f"{name}.{kind}"] = state.optimizer.get(f"{name}.{kind}", zero)
    return Checkpoint(state.step, old._replace(params=params), slots, {})
