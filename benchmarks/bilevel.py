"""What an exact GeSSL hyper-gradient costs, against Betty, TorchOpt and a plain loop, on one problem in one run.

    python -m benchmarks.bilevel [--quick] [--repeats 3] [--threads 1]

First every arm must give the same hyper-gradient, in float64. Then each is timed in *base steps*, one plain SimCLR
gradient of the same images, as benchmarks/rounds.py says. Prints Markdown tables and writes
benchmarks/out/bilevel.json.
"""

import argparse
import copy
import gc
import json
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import tables
from benchmarks.accuracy import agreement, check, relative_error, solver_errors, usable
from benchmarks.meter import peak_bytes
from benchmarks.peers import Prepare, load
from benchmarks.problem import Case, Problem, build, ssl_loss
from benchmarks.progress import progress
from benchmarks.rounds import run_rounds
from gessl.allocator import keep_freed_memory
from gessl.bilevel.settings import SOLVER_NAMES, GesslSettings, Series, Truncated
from gessl.bilevel.solvers import SolverError
from gessl.methods.base import Tensors

Done = Callable[[], object]

CASES = (Case(1, 1), Case(1, 5, 4), Case(3, 5), Case(5, 5))
SOLVER_CASE = Case(3, 5)
HEAVY = 2  # rounds of a network that is slow here
BASE, ORDINARY, EXACT = "base", "ordinary", "exact"  # ordinary: the base step with torch's own layers


@dataclass(frozen=True)
class Net:
    """A timed network: side and batch of its images, and whether it is quick enough for all rounds.

    One that is not gets two, and no look at its memory.
    """

    backbone: str
    size: int
    batch: int
    light: bool


NETS = {
    "cpu": (Net("small-conv", 32, 32, True), Net("resnet18-cifar", 32, 8, False)),
    "cuda": (Net("small-conv", 32, 512, True), Net("resnet18-cifar", 32, 128, True)),
}
QUICK = (Net("small-conv", 8, 8, True),)


def bound(settings: GesslSettings) -> int:
    """The fewest base steps per task that the solver's passes come to.

    K inner gradients, λ target gradients, and 1 for the target's embedding and the divergence's backward pass. A
    Hessian-vector product is 2 where the gradient's graph was kept, else 3; a finite difference is 1 per side.
    """
    steps, own = settings.inner_steps, settings.solver
    last = own.last_steps if isinstance(own, Truncated) else steps
    iterations = own.iterations if isinstance(own, Series) else 0
    second_order = {
        "unroll": 2 * steps,
        "replay": 3 * steps,
        "exact": (2 if steps == 1 else 3) * steps,
        "truncated": 3 * min(last, steps),
        "central_difference": 2 * steps,
        "one_sided_difference": steps,
        "implicit_cg": 1 + 2 * iterations,
        "implicit_neumann": 1 + 2 * iterations,
        "parameter_matching": -1,  # neither embeds nor compares
    }
    return steps + settings.target_steps + 1 + second_order.get(own.name, 0)


def ordinary_step(problem: Problem) -> Callable[[], Tensors]:
    """The base step as anyone would write it."""
    net = copy.deepcopy(problem.network)

    def run() -> Tensors:
        net.zero_grad()
        for images in problem.batches:
            (ssl_loss(net(images)) / problem.case.tasks).backward()
        return {name: tensor.grad for name, tensor in net.named_parameters()}

    return run


def own_solvers(case: Case) -> tuple[str, ...]:
    """The exact solver, and, where that one replays to save memory, also the one that unrolls as the peers do."""
    return (EXACT,) if case.inner_steps == 1 else (EXACT, "unroll")


def compare(net: Net, case: Case, peers: dict[str, Prepare], count: int, device: str, done: Done) -> list[dict]:
    """One row per arm: the base step of torch's own layers, this project's solvers, and the peers.

    `error` is that of the float32 result, against the plain loop in float64. On ReLU networks the problem magnifies
    rounding, whoever solves it: kinks flip, and each inner step adds to the difference.
    """
    problem = build(net.backbone, net.size, net.batch, case, device=device)
    settings = {name: problem.settings(name) for name in own_solvers(case)}
    arms = {
        ORDINARY: ordinary_step(problem),
        **{name: lambda chosen=chosen: problem.gradient(chosen) for name, chosen in settings.items()},
        **{label: prepare(problem) for label, prepare in peers.items()},
    }
    base = lambda: problem.gradient(None)  # noqa: E731 (an arm like the others)
    times = run_rounds(base, arms, count if net.light else HEAVY, device, done)
    memory = {name: peak_bytes(run, device) for name, run in {BASE: base, **arms}.items()} if net.light else {}
    checked = net.light or case == CASES[0]  # a slow network in float64 once
    reference, ours = float64_results(net, case, peers, device) if checked else (None, None)
    return [
        {
            "net": net.backbone,
            "size": net.size,
            "batch": net.batch,
            "base_ms": 1e3 * times.base_seconds / case.tasks,
            "K": case.inner_steps,
            "lambda": case.target_steps,
            "M": case.tasks,
            "arm": name,
            "ratio": times.ratio(name),
            "ratio_ordinary": times.ratio(name, ORDINARY),
            "bound": 1 if name == ORDINARY else bound(settings[name]) if name in settings else None,
            "over_exact": None if name == ORDINARY else times.ratio(name, EXACT),
            "over_unroll": None if name == ORDINARY else times.ratio(name, own_solvers(case)[-1]),
            "memory": memory[name] / memory[BASE] if memory else None,
            "error": relative_error(times.results[name], reference) if reference and name != ORDINARY else None,
            "error_float64": relative_error(ours, reference) if reference and name == EXACT else None,
        }
        for name in arms
    ]


def float64_results(net: Net, case: Case, peers: dict[str, Prepare], device: str) -> tuple[Tensors, Tensors]:
    """The hyper-gradient of the timed problem in float64, by the plain loop and by this project."""
    problem = build(net.backbone, net.size, net.batch, case, device=device, dtype=torch.float64)
    return peers["plain loop"](problem)(), problem.gradient(problem.settings())


def compare_solvers(net: Net, count: int, device: str, done: Done) -> list[dict]:
    """One row per solver of this project."""
    problem = build(net.backbone, net.size, net.batch, SOLVER_CASE, device=device)
    settings, refused = {}, {}
    for name in SOLVER_NAMES:
        try:
            settings[name] = problem.settings(name)
        except ValueError as error:
            refused[name] = str(error)
    base = lambda: problem.gradient(None)  # noqa: E731 (an arm like the others)
    arms = {name: lambda chosen=chosen: _patient(problem, chosen) for name, chosen in settings.items()}
    times = run_rounds(base, arms, count, device, done)
    memory = {name: peak_bytes(run, device) for name, run in {BASE: base, **arms}.items()}
    errors = solver_errors(SOLVER_CASE, list(settings))
    rows = [
        {
            "solver": name,
            "ratio": times.ratio(name),
            "bound": bound(chosen),
            "memory": memory[name] / memory[BASE],
            "proximal": chosen.proximal,
            "errors": errors[name],
        }
        for name, chosen in settings.items()
    ]
    return rows + [{"solver": name, "refused": why} for name, why in refused.items()]


def replay_memory(net: Net, device: str) -> float:
    """Peak memory of the replaying solver at K = 5 over that at K = 1."""
    peaks = []
    for steps in (5, 1):
        problem = build(net.backbone, net.size, net.batch, Case(steps, 5), device=device)
        settings = problem.settings("replay")
        problem.gradient(settings)
        peaks.append(peak_bytes(lambda p=problem, s=settings: p.gradient(s), device))
    return peaks[0] / peaks[1]


def _patient(problem: Problem, settings: GesslSettings) -> Tensors:
    try:
        return problem.gradient(settings)
    except SolverError:  # found out at the end, all passes made: the time stands, and the errors table tells
        return {}


def calls_to_make(nets: tuple[Net, ...], count: int, peers: int) -> int:
    """How many timed calls of an arm a run makes, for the progress bar."""
    compared = sum(
        (1 + len(own_solvers(case)) + peers) * (count if net.light else HEAVY) for net in nets for case in CASES
    )
    return compared + len(SOLVER_NAMES) * count


def summary(rows: list[dict], solvers: list[dict], agreed: list[dict], net: Net, device: str) -> dict:
    """The figures that the tables boil down to."""

    def median(arm: str, value: Callable[[dict], float]) -> float | None:
        found = [value(row) for row in rows if row["arm"] == arm]
        return statistics.median(found) if found else None

    return {
        "exact_over_bound": median(EXACT, lambda row: row["ratio"] / row["bound"]),
        "exact_over_bound_ordinary": median(EXACT, lambda row: row["ratio_ordinary"] / row["bound"]),
        # like for like: peers unroll, keeping K graphs; `over_exact` in the rows is over the default, which does not
        "betty_over_ours": median("Betty", lambda row: row["over_unroll"]),
        "torchopt_over_ours": median("TorchOpt", lambda row: row["over_unroll"]),
        "plain_over_ours": median("plain loop", lambda row: row["over_unroll"]),
        "ordinary_over_base": median(ORDINARY, lambda row: row["ratio"]),
        "max_rel_error_exact": max(row["rel_error"] for row in agreed if row["arm"] == EXACT),
        "max_rel_error_exact_timed": max(row["error_float64"] or 0.0 for row in rows),
        "max_rel_error_exact_slope": max(row.get("rel_error_slope", 0.0) for row in agreed),
        "replay_memory_k5_over_k1": replay_memory(net, device),
        "memory_by_solver": {row["solver"]: row["memory"] for row in solvers if "memory" in row},
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small network on 8x8 images only, two rounds")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; a network that is slow here gets one")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; beyond one, times are wall clock")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as training does; all arms gain
    device = "cuda" if torch.cuda.is_available() else "cpu"
    nets, count = (QUICK, 2) if options.quick else (NETS[device], options.repeats)
    peers, versions, skipped = load()
    peers, broken = usable(peers)
    gc.freeze()  # what is loaded by now need not be looked through before each timed call
    agreed = [row for case in CASES for row in agreement(case, peers)]
    check(agreed)
    with progress(calls_to_make(nets, count, len(peers)), "arms") as done:
        rows = [row for net in nets for case in CASES for row in compare(net, case, peers, count, device, done)]
        solvers = compare_solvers(nets[0], count, device, done)
    gc.unfreeze()
    report = {
        **summary(rows, solvers, agreed, nets[0], device),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "cpu_threads": options.threads,
        "rounds": count,
        "torch": torch.__version__,
        "peers": versions,
        "skipped": skipped | broken,
        "rows": rows,
        "solvers": solvers,
        "agreement": agreed,
    }
    out = Path("benchmarks/out/bilevel.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    print(tables.markdown(report))


if __name__ == "__main__":
    main()
