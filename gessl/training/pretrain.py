"""The pretraining step: from images to an encoder, resumable to the same bits."""

import dataclasses
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import save
from tqdm import tqdm

from gessl.bilevel.solvers import SolverError
from gessl.cluster.failed import failures_noted, note_failure
from gessl.cluster.lease import Lease
from gessl.cluster.machine import Efficiency, set_up
from gessl.cluster.signals import Notice
from gessl.data.arrays import data_files, save_array
from gessl.errors import MEMORY_ERRORS, Unfinished, UserError, out_of_memory
from gessl.files import atomic_json, sha256_file, sha256_json
from gessl.layout import CHECKPOINT, lease_dir, run_dir, work_dir
from gessl.nets.encoder import save_encoder
from gessl.nets.parallel import anywhere, processes, wait
from gessl.notices import say
from gessl.records.current import is_current
from gessl.records.provenance import fingerprint
from gessl.records.record import read_record
from gessl.records.step import Step
from gessl.tables.metrics import METRICS, read_metrics
from gessl.training.branch import copy_metrics, trunk_files, trunk_state
from gessl.training.checkpoint import POINTER, Owner, load_checkpoint, pack, save_checkpoint, save_state
from gessl.training.climb import Climb
from gessl.training.failure import diverging, explain
from gessl.training.inner_rate import CurvatureError
from gessl.training.metrics import Metrics
from gessl.training.run import Run
from gessl.training.settings import Science

LESS = "lower train.batch, widths of the method or gessl.tasks, or take a smaller backbone; or reserve more memory"
SINGULAR = torch.linalg.LinAlgError  # type: ignore[attr-defined]  # what whitening meets when embeddings collapse


def pretrain(run_id: str, science: Science, efficiency: Efficiency, trunk: str | None = None) -> None:
    """Train run `run_id` to its last step, from its last checkpoint if there is one; publish `results/runs/<run>/`.

    Without a checkpoint it goes on from what the run `trunk` left, if that is given (see `gessl.training.branch`).

    Started by torchrun, the processes share each mini-batch (`gessl.nets.parallel`), and the first one writes. If
    another job makes the same run, it is waited for. When SIGTERM or SIGUSR1 says that the machine is about to go,
    it finishes its step, saves a checkpoint and ends. What is there whole, and current, stays as it is.

    Raises:
        UserError: bad input, a full disk, an altered checkpoint, or a loss that is not finite.
        Unfinished: the run was stopped, or its lease was lost; started again, it goes on to the same bits.
    """
    with Notice() as notice:
        if int(os.environ.get("RANK", "0")):  # torchrun's word
            if not made(run_id, science):
                follow(run_id, science, trunk, set_up(efficiency), notice)
            return
        waiting = Lease(lease_dir(run_id), run_id, on_wait=say, stop=lambda: notice.given)
        with waiting as lease, failures_noted(run_id, "pretraining", LESS):
            lead(run_id, science, trunk, efficiency, notice, lease)


def lead(
    run_id: str, science: Science, trunk: str | None, efficiency: Efficiency, notice: Notice, lease: Lease
) -> None:
    """The process that writes: the whole step."""
    if made(run_id, science):
        if not lease.waited:  # else it has been said that another job makes it
            say(f"{run_dir(run_id)}: is what would be made now, so it stays")
        shutil.rmtree(work_dir(run_id), ignore_errors=True)
        return
    device = set_up(efficiency)
    described, inputs = describe(science), [*data_files(science.dataset), *trunk_files(trunk)]
    step = Step("pretrain", run_id, run_dir(run_id), inputs=inputs, config=described, seed=science.seed)
    with step:
        work, owner = work_dir(run_id), owner_of(run_id, science)
        checkpoint = load_checkpoint(work, owner, device)
        wait()  # until the others have read it, too
        if trunk and not checkpoint:
            checkpoint = trunk_state(trunk, science, device)
            copy_metrics(trunk, work)
        with closing(Run(science, device, checkpoint, compiled=efficiency.compile)) as run:
            _try_out(run)
            step.notes |= {"resumed_from_step": run.step, "processes": processes(), "compiled": efficiency.compile}
            step.notes |= run.store.facts
            train(run, owner, work, efficiency, stop_signal=lambda: notice.given, before_write=lease.require)
            publish(run, step, work, described)
        lease.require()
    lease.require()
    (work / POINTER).unlink()  # first: nobody may go on from a checkpoint whose metrics are gone already
    shutil.rmtree(work)


def _try_out(run: Run) -> None:
    """Before the first step, see whether the method's gradients are what they are taken for."""
    if run.step != run.science.first_step:
        return
    try:
        run.try_out()
    except MEMORY_ERRORS as error:  # it takes more than a step of the run may
        if not out_of_memory(error):
            raise
        say(f"too little memory to try {run.science.method_name} before the first step; its gradients go unchecked")


def made(run_id: str, science: Science) -> bool:
    """Whether there is what would be made now, byte for byte: a job was waited for, or inputs are the same again."""
    if not is_current("pretrain", run_dir(run_id), describe(science)):
        return False
    try:
        record = read_record(run_dir(run_id))
    except UserError:  # an edited record
        return False
    return record is not None and all(sha256_file(Path(out["path"])) == out["sha256"] for out in record["outputs"])


def follow(run_id: str, science: Science, trunk: str | None, device: torch.device, notice: Notice) -> None:
    """Another process of the same run: every step of it, nothing written."""
    checkpoint = load_checkpoint(work_dir(run_id), owner_of(run_id, science), device)
    wait()
    if trunk and not checkpoint:
        checkpoint = trunk_state(trunk, science, device)
    with closing(Run(science, device, checkpoint)) as run:
        _try_out(run)
        while run.step < science.end:
            run.advance(None)
            if anywhere(bool(notice.given)) and run.step < science.end:
                raise stopped(run_id, run, notice.given)


def stopped(run_id: str, run: Run, by: str) -> Unfinished:
    """What a run says that ends before its last step, stopped by a signal or (not `by`) by one to another process."""
    by = by or "another process's signal"
    return Unfinished(f"{run_id}: stopped by {by} at step {run.step} of {run.science.end}; the same command goes on")


def owner_of(run_id: str, science: Science) -> Owner:
    """Whose the run's checkpoints are."""
    code = fingerprint(__name__, f"gessl.methods.{science.method_name}")
    return Owner(run_id, sha256_json(describe(science)), code)


def train(
    run: Run,
    owner: Owner,
    work: Path,
    efficiency: Efficiency,
    *,
    stop_signal: Callable[[], str] = lambda: "",
    before_write: Callable[[], object] = lambda: None,
) -> None:
    """The loop, with progress, metrics and checkpoints in `work`.

    Args:
        stop_signal: asked after each step; names the signal that stops the run, or is empty.
        before_write: called before anything is written; raises if this process may not any more.

    Raises:
        UserError: a loss is not finite, or a checkpoint cannot be written.
        Unfinished: stopped, with a checkpoint of this step; or another job has taken over.
    """
    total, run_id = run.science.end, owner.run
    climb = Climb(run.science, (row for row in read_metrics(work / METRICS) if row["step"] < run.step))
    metrics = Metrics(work / METRICS, run.step, climb.see)
    interval = 0.2 if sys.stderr.isatty() else 15
    with tqdm(total=total, initial=run.step, desc=run_id, unit="step", mininterval=interval) as bar:
        while run.step < total:
            _advance(run, metrics, run_id, work)
            bar.update()
            leaving = anywhere(bool(stop_signal())) and run.step < total
            at_checkpoint = leaving or run.step % efficiency.checkpoint_every == 0 or run.step == total
            judged = run.step == climb.last
            if at_checkpoint or judged or run.step % efficiency.log_every == 0:
                _write(metrics, before_write, run, run_id, work)
            if judged and climb.found:
                bar.write(f"{run_id}: {climb.warning}", file=sys.stderr)
            if at_checkpoint:
                save_checkpoint(work, owner, run.checkpoint())
            if leaving:
                raise stopped(run_id, run, stop_signal())
    if advice := diverging(read_metrics(work / METRICS)):
        print(f"{run_id}: {advice}", file=sys.stderr)


def _advance(run: Run, metrics: Metrics, run_id: str, work: Path) -> None:
    """One outer step; where it cannot be made, the metrics so far are written and the run stops."""
    try:
        run.advance(metrics)
    except (SolverError, CurvatureError, SINGULAR) as error:
        metrics.flush()
        _stop(run_id, work, run.step, str(error))


def _write(metrics: Metrics, before_write: Callable[[], object], run: Run, run_id: str, work: Path) -> None:
    """Write the metrics; stop the run where one of its losses is not finite."""
    before_write()
    broken = metrics.flush()
    if broken:
        _stop(run_id, work, broken.step, explain(broken.losses, broken.norms, run.science))


def _stop(run_id: str, work: Path, step: int, reason: str) -> NoReturn:
    saved = sorted(work.glob("step-*.safetensors"))
    last = saved[-1].as_posix() if saved else None
    note_failure(run_id, reason, step, last)
    raise UserError(f"{run_id}: step {step}: {reason}; last good checkpoint: {last or 'none yet'}")


def publish(run: Run, step: Step, work: Path, described: dict[str, Any]) -> None:
    """Write the run's outputs to the step's staging folder."""
    save_encoder(run.trained(), step.path("encoder.safetensors"))
    step.path("model.safetensors").write_bytes(save(pack(**run.variables._asdict())))
    if run.science.stops_at:
        save_state(step.path(CHECKPOINT), run.checkpoint())
    views = run.task(run.science.first_step, 0, whole=True)[0].views[:, :16]
    save_array(step.path("views.npy"), (views * 255).round().to(torch.uint8).cpu().numpy())
    shutil.copyfile(work / METRICS, step.path(METRICS))
    atomic_json(step.path("config.json"), described)


def describe(science: Science) -> dict[str, Any]:
    """The resolved science settings as JSON."""
    return dataclasses.asdict(science)
