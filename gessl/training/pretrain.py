"""The pretraining step: from task order and images to an encoder, resumable to the same bits."""

import dataclasses
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from safetensors.torch import save
from tqdm import tqdm

from gessl.allocator import keep_freed_memory
from gessl.bilevel.inner import initial_rates
from gessl.bilevel.learner import Learner, Variables, channels_last, seeded_init
from gessl.bilevel.solvers import SolverError
from gessl.bilevel.support_query import Guided
from gessl.bilevel.vectors import norm
from gessl.data.arrays import open_images, read_card
from gessl.data.views import POLICIES, make_views
from gessl.errors import UserError
from gessl.files import atomic_json
from gessl.layout import data_dir, run_dir, tasks_dir, work_dir
from gessl.lineage.provenance import fingerprint
from gessl.lineage.record import Step
from gessl.methods.base import Batch, Clock
from gessl.nets.encoder import Encoder, save_encoder
from gessl.nets.parallel import join, processes, rank, wait
from gessl.optimizer import Optimizer
from gessl.rng import generator
from gessl.tasks.read import batch_positions, load_order
from gessl.training.checkpoint import Checkpoint, load_checkpoint, pack, save_checkpoint
from gessl.training.failure import diverging, explain
from gessl.training.metrics import Metrics, read_metrics
from gessl.training.schedule import learning_rate
from gessl.training.settings import Efficiency, Science
from gessl.training.step import outer_gradient

FAILED = "failed.json"
METRICS = "metrics.jsonl"
SINGULAR = torch.linalg.LinAlgError  # type: ignore[attr-defined]  # what whitening meets when embeddings collapse


class Run:
    """One pretraining run in memory: data, learner, variables, optimiser, and the step it has reached.

    It stands where `checkpoint` stood, or at the start without one.
    """

    def __init__(
        self, science: Science, device: torch.device, checkpoint: Checkpoint | None = None, *, compiled: bool = False
    ) -> None:
        self.science, self.device = science, device
        card = read_card(science.dataset)
        self.images = open_images(science.dataset)
        self._order = load_order(science.dataset, science.seed)
        self._train = np.sort(self._order[0])
        batch = science.train.batch
        batch_positions(self._order, batch, science.train.steps * self.tasks_per_step - 1)  # enough tasks?
        self._epoch = max(1, len(self._train) // batch // self.tasks_per_step)
        with seeded_init(generator(science.seed, "encoder")):
            lab = science.method.needs == "lab"
            self.encoder = Encoder(science.backbone, card["mean"], card["std"], card["size"], lab)
        gessl = science.gessl
        self.learner = Learner(
            Guided(science.method, gessl.support_query) if gessl and gessl.support_query else science.method,
            self.encoder,
            generator(science.seed, "heads"),
            images=self._order.shape[1],
            precision=science.train.precision,
            compiled=compiled,
        )
        variables = channels_last(checkpoint.variables) if checkpoint else self._fresh()
        self.variables = Variables(
            *({name: tensor.to(device) for name, tensor in group.items()} for group in variables)
        )
        train = science.train
        self.optimizer = Optimizer(
            self.variables.params,
            train.optimizer,
            weight_decay=train.weight_decay,
            momentum=train.momentum,
            beta2=train.beta2,
            eta=train.eta,
            clip_lr=train.clip_lr,
            clip=train.clip,
        )
        self.step = 0
        if checkpoint:
            self.optimizer.restore(checkpoint.optimizer)
            self.step = checkpoint.step

    def _fresh(self) -> Variables:
        variables, gessl = self.learner.init(), self.science.gessl
        if gessl and gessl.learn_inner_lr:
            variables.params.update(initial_rates(variables.params, gessl))
        return variables

    @property
    def tasks_per_step(self) -> int:
        """M; 1 for the base method alone."""
        return self.science.gessl.tasks if self.science.gessl else 1

    def task(self, step: int, task: int) -> list[Batch]:
        """The sets of views of one task of one outer step: a function of the seed and these two alone."""
        science = self.science
        positions = batch_positions(self._order, science.train.batch, step * self.tasks_per_step + task)
        images = torch.from_numpy(np.ascontiguousarray(self.images[positions])).to(self.device, non_blocking=True)
        sets = science.gessl.view_sets if science.gessl else 1
        index = torch.from_numpy(np.searchsorted(self._train, positions)).to(self.device, non_blocking=True)
        batches = []
        for s in range(sets):
            views = make_views(images, POLICIES[science.views], generator(science.seed, "views", step, task, s))
            draws = generator(science.seed, "draws", step, task, s)
            batches.append(self.learner.draw(Batch(*views, index=index), draws))
        return batches

    def advance(self, metrics: Metrics | None) -> None:
        """One outer step, told to `metrics` if this process keeps any."""
        science, step = self.science, self.step
        tasks = [self.task(step, task) for task in range(self.tasks_per_step)]
        outer = outer_gradient(self.learner, self.variables, tasks, science.gessl)
        lr = learning_rate(step, science.train)
        self.optimizer.step(outer.gradient, lr)
        self.step += 1
        clock = Clock(self.step, science.train.steps, self._epoch)
        state = self.learner.commit(self.variables.state, self.variables.params, outer.seen, clock)
        self.variables = self.variables._replace(buffers=outer.buffers, state=state)
        if metrics is None:
            return
        images = self.step * self.tasks_per_step * science.train.batch
        logs = {**outer.logs, "grad_norm": norm(outer.gradient)}
        features = outer.seen[0].outputs["h"].flatten(0, 1)
        metrics.add({"step": step, "images": images, "lr": lr}, logs, features, (outer.losses, outer.norms))

    def trained(self) -> Encoder:
        """The encoder as it is now, on the CPU."""
        prefix = "encoder."
        tensors = {**self.variables.params, **self.variables.buffers}
        self.encoder.load_state_dict(
            {name.removeprefix(prefix): tensor.cpu() for name, tensor in tensors.items() if name.startswith(prefix)}
        )
        return self.encoder

    def checkpoint(self) -> Checkpoint:
        """All state, as it is now."""
        return Checkpoint(self.step, self.variables, self.optimizer.slots())


def pretrain(run_id: str, science: Science, efficiency: Efficiency) -> None:
    """Train run `run_id` to its last step, from its last checkpoint if there is one; publish `results/runs/<run>/`.

    Started by torchrun, the processes share each mini-batch (`gessl.nets.parallel`), and the first one writes.

    Raises:
        UserError: bad input, a full disk, an altered checkpoint, or a loss that is not finite.
    """
    device = set_up(efficiency)
    if rank():
        follow(run_id, science, device)
        return
    data, tasks = data_dir(science.dataset), tasks_dir(science.dataset, science.seed)
    inputs = [data / "images.npy", data / "card.json", tasks / "order.npy"]
    described = describe(science)
    with Step("pretrain", run_id, run_dir(run_id), inputs=inputs, config=described, seed=science.seed) as step:
        work, code = work_dir(run_id), sources(science)
        checkpoint = load_checkpoint(work, run_id, code, device)
        wait()  # until the others have read it, too
        run = Run(science, device, checkpoint, compiled=efficiency.compile)
        (work / FAILED).unlink(missing_ok=True)
        step.notes |= {"resumed_from_step": run.step, "processes": processes()}
        train(run, run_id, code, work, efficiency)
        publish(run, step, work, described)
    shutil.rmtree(work)


def follow(run_id: str, science: Science, device: torch.device) -> None:
    """Another process of the same run: every step of it, nothing written."""
    checkpoint = load_checkpoint(work_dir(run_id), run_id, sources(science), device)
    wait()
    run = Run(science, device, checkpoint)
    while run.step < science.train.steps:
        run.advance(None)


def sources(science: Science) -> str:
    """Fingerprint of the code that trains the run."""
    return fingerprint(__name__, f"gessl.methods.{science.method_name}")


def train(run: Run, run_id: str, code: str, work: Path, efficiency: Efficiency) -> None:
    """The loop, with progress, metrics and checkpoints in `work`."""
    total = run.science.train.steps
    metrics = Metrics(work / METRICS, run.step)
    watched = sys.stderr.isatty()
    bar = tqdm(total=total, initial=run.step, desc=run_id, unit="step", mininterval=0.2 if watched else 15)
    with bar:
        while run.step < total:
            try:
                run.advance(metrics)
            except (SolverError, SINGULAR) as error:
                metrics.flush()
                _stop(run_id, work, run.step, str(error))
            bar.update()
            at_checkpoint = run.step % efficiency.checkpoint_every == 0 or run.step == total
            if at_checkpoint or run.step % efficiency.log_every == 0:
                broken = metrics.flush()
                if broken:
                    _stop(run_id, work, broken.step, explain(broken.losses, broken.norms, run.science))
            if at_checkpoint:
                save_checkpoint(work, run_id, code, run.checkpoint())
    advice = diverging(read_metrics(work / METRICS))
    if advice:
        print(f"{run_id}: {advice}", file=sys.stderr)


def _stop(run_id: str, work: Path, step: int, reason: str) -> NoReturn:
    saved = sorted(work.glob("step-*.safetensors"))
    last = saved[-1].as_posix() if saved else None
    atomic_json(work / FAILED, {"step": step, "reason": reason, "checkpoint": last})
    raise UserError(f"{run_id}: step {step}: {reason}; last good checkpoint: {last or 'none yet'}")


def publish(run: Run, step: Step, work: Path, described: dict[str, Any]) -> None:
    """Write the run's outputs to the step's staging folder."""
    save_encoder(run.trained(), step.path("encoder.safetensors"))
    step.path("model.safetensors").write_bytes(save(pack(run.variables, {})))
    views = run.task(0, 0)[0].views[:, :16]
    np.save(step.path("views.npy"), (views * 255).round().to(torch.uint8).cpu().numpy())
    shutil.copyfile(work / METRICS, step.path(METRICS))
    atomic_json(step.path("config.json"), described)


def describe(science: Science) -> dict[str, Any]:
    """The resolved science settings as JSON."""
    return dataclasses.asdict(science)


def set_up(efficiency: Efficiency) -> torch.device:
    """Choose the device and make computation deterministic.

    Raises:
        UserError: CUDA was asked for and there is none.
    """
    cuda = torch.cuda.is_available()
    if efficiency.device == "cuda" and not cuda:
        raise UserError("efficiency.device: cuda was asked for, but torch sees no CUDA device; use auto or cpu")
    torch.set_num_threads(efficiency.threads)
    keep_freed_memory()
    if not cuda or efficiency.device == "cpu":
        join("gloo")
        return torch.device("cpu")  # what we call is deterministic there for a fixed number of threads
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace
    torch.use_deterministic_algorithms(True)  # takes seconds: it imports the compiler
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))  # torchrun's word for the process's number here
    join("nccl")
    return torch.device("cuda")
