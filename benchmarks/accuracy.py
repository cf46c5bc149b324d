"""Do all arms compute the same thing, and how far off is each approximate solver?  In float64, on small networks."""

import dataclasses

import torch
from torch import Tensor

from benchmarks.peers import Prepare
from benchmarks.peers.plain_loop import Loop
from benchmarks.problem import ALPHA, Case, Problem, build, distance, log_posterior
from gessl.bilevel.settings import GesslSettings, PlainSolver
from gessl.bilevel.solvers import SolverError
from gessl.bilevel.vectors import add
from gessl.methods.base import Tensors

NETS = {"tanh": True, "ReLU": False}
TOLERANCE = 1e-9
TRAINED = 100  # base steps, after which the curvature has fallen to what most of a training sees


def small(case: Case, *, smooth: bool) -> Problem:
    """The small convolutional network on eight 8x8 images per task, in float64."""
    return build("small-conv", 8, 8, case, dtype=torch.float64, smooth=smooth)


def trained(problem: Problem) -> Problem:
    """The problem at the weights that some base steps on its tasks lead to."""
    for _ in range(TRAINED):
        params = add(problem.variables.params, problem.gradient(None), -ALPHA)
        problem = dataclasses.replace(problem, variables=problem.variables._replace(params=params))
    return problem


def flat(gradient: Tensors) -> Tensor:
    """One vector, in the order of the names."""
    return torch.cat([gradient[name].detach().flatten() for name in sorted(gradient)])


def relative_error(found: Tensors, reference: Tensors) -> float:
    """‖found - reference‖ / ‖reference‖."""
    x, y = flat(found), flat(reference)
    return float((x - y).norm() / y.norm())


def usable(peers: dict[str, Prepare]) -> tuple[dict[str, Prepare], dict[str, str]]:
    """The peers that run with the packages installed here, and why the others do not."""
    found, broken = {}, {}
    for label, prepare in peers.items():
        try:
            prepare(small(Case(1, 1), smooth=True))()
            found[label] = prepare
        except Exception as error:  # whatever another project's code raises
            broken[label] = f"fails here ({type(error).__name__}: {str(error).splitlines()[0]})"
    return found, broken


def agreement(case: Case, peers: dict[str, Prepare]) -> list[dict]:
    """Relative errors against the plain loop; for "exact", ours, also that of a slope against finite differences."""
    rows = []
    for net, smooth in NETS.items():
        problem = small(case, smooth=smooth)
        found = {"exact": problem.gradient(problem.settings())}
        found |= {label: prepare(problem)() for label, prepare in peers.items()}
        for label, gradient in found.items():
            row = {"K": case.inner_steps, "lambda": case.target_steps, "M": case.tasks, "net": net, "arm": label}
            rows.append(row | {"rel_error": relative_error(gradient, found["plain loop"])})
        if smooth:
            rows[-len(found)]["rel_error_slope"] = slope_error(problem, found["exact"])
    return rows


def check(agreed: list[dict]) -> None:
    """Stop where an arm computes something else: its time would mean nothing."""
    for row in agreed:
        if not row["rel_error"] < TOLERANCE:
            raise SystemExit("{arm} disagrees at K={K}, λ={lambda}, M={M}, {net}: {rel_error:.2g}".format(**row))


def slope_error(problem: Problem, gradient: Tensors, h: float = 3e-5) -> float:
    """Relative error of the slope along `gradient`, against central differences of fourth order of J, targets fixed."""
    loop, direction, length = Loop(problem), {n: t / flat(gradient).norm() for n, t in gradient.items()}, 0.0
    theta = {name: tensor.detach() for name, tensor in loop.theta.items()}

    def at(images: Tensor, log_target: Tensor, step: float) -> float:
        moved = {name: (tensor + step * direction[name]).requires_grad_() for name, tensor in theta.items()}
        return distance(log_posterior(loop.embed(loop.adapted(moved, images), images)), log_target).item()

    for images in problem.batches:
        target = loop.log_target(loop.adapted(loop.theta, images), images)
        near, far = (at(images, target, step) - at(images, target, -step) for step in (h, 2 * h))
        length += (8 * near - far) / (12 * h) / problem.case.tasks
    return abs(length / float(flat(gradient).norm()) - 1)


def solver_errors(case: Case, solvers: list[str]) -> dict[str, dict]:
    """Each solver's hyper-gradient against the exact one of the same inner loop: relative error and cosine per net.

    Where a solver gives up, its reason stands in place of the numbers.
    """
    found: dict[str, dict] = {solver: {} for solver in solvers}
    for net, smooth in NETS.items():
        initial = small(case, smooth=smooth)
        for name, problem in ((net, initial), (f"{net}, trained", trained(initial))):
            for solver in solvers:
                found[solver][name] = _solver_error(problem, problem.settings(solver))
    return found


def _solver_error(problem: Problem, settings: GesslSettings) -> dict:
    reference = problem.gradient(dataclasses.replace(settings, solver=PlainSolver("exact")))
    try:
        gradient = problem.gradient(settings)
    except SolverError as error:
        return {"gives_up": str(error)}
    cosine = torch.cosine_similarity(flat(gradient), flat(reference), dim=0)
    return {"rel_error": relative_error(gradient, reference), "cosine": float(cosine)}
