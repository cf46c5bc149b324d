"""The metrics of every step: gathered on the device, read in batches, appended to one JSON-lines file."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gessl.cluster.device import StepTime
from gessl.methods.base import Tensors
from gessl.tables.metrics import DATA_WAIT, append_rows, keep_rows
from gessl.training.diagnostics import effective_rank, feature_covariance, feature_std


class Broken(NamedTuple):
    """The first step whose loss or gradient is not finite, with its tasks' losses `[M, ·]` and gradient norms `[M]`."""

    step: int
    losses: list[list[float]]
    norms: list[float]


class Metrics:
    """Buffers rows until `flush`, so that a step never waits for the device.

    Args:
        path: the JSON-lines file; rows at or after `step` (of a run that was killed later) are dropped.
        step: outer steps done so far.
        see: is shown each row before it is written, and may add to it.
    """

    def __init__(self, path: Path, step: int, see: Callable[[dict[str, Any]], None] = lambda row: None) -> None:
        self._path, self._see = path, see
        kept = keep_rows(path, step)
        self._seconds: float = kept[-1]["seconds"] if kept else 0.0
        self._images: int = kept[-1]["images"] if kept else 0
        self._rows: list[dict[str, Any]] = []
        self._scalars: list[Tensors] = []
        self._covariances: list[Tensor] = []
        self._tasks: list[tuple[Tensor, Tensor]] = []
        self._times: list[StepTime] = []
        self._since = time.perf_counter()

    def add(
        self, row: dict[str, Any], scalars: Tensors, features: Tensor, tasks: tuple[Tensor, Tensor], timed: StepTime
    ) -> None:
        """One step: `row` holds `step`, `images` (drawn so far) and `lr`; the rest stays on the device.

        `tasks` are the tasks' losses along their paths `[M, ·]` and gradient norms `[M]`, read if the step is broken.
        """
        self._rows.append(row)
        self._scalars.append(scalars)
        self._covariances.append(feature_covariance(features))
        self._tasks.append(tasks)
        self._times.append(timed)

    def flush(self) -> Broken | None:
        """Write the waiting rows; the first step whose loss or gradient is not finite, if any (its row is last)."""
        if not self._rows:
            return None
        covariance = torch.stack(self._covariances)
        finite = covariance.isfinite().all((-2, -1), keepdim=True)
        covariance = torch.where(finite, covariance, torch.zeros_like(covariance))
        columns = {name: torch.stack([row[name] for row in self._scalars]) for name in self._scalars[0]}
        columns |= {"feature_std": feature_std(covariance), "effective_rank": effective_rank(covariance)}
        values = {name: column.tolist() for name, column in columns.items()}  # waits for the device, once
        now = time.perf_counter()
        elapsed, images = now - self._since, self._rows[-1]["images"] - self._images
        rows, broken = [], None
        for index, row in enumerate(self._rows):
            scalars = {name: column[index] for name, column in values.items()}
            row["seconds"] = round(self._seconds + elapsed * (index + 1) / len(self._rows), 4)
            row["images_per_second"] = round(images / elapsed, 1)
            row[DATA_WAIT] = round(self._times[index].data_wait(), 4)
            row |= {name: value if math.isfinite(value) else None for name, value in scalars.items()}
            self._see(row)
            rows.append(row)
            if not math.isfinite(scalars["loss"]) or not math.isfinite(scalars["grad_norm"]):
                losses, norms = self._tasks[index]
                broken = Broken(row["step"], losses.tolist(), norms.tolist())
                break
        append_rows(self._path, rows)
        self._seconds, self._since, self._images = self._seconds + elapsed, now, self._rows[-1]["images"]
        self._rows, self._scalars, self._covariances, self._tasks, self._times = [], [], [], [], []
        return broken
