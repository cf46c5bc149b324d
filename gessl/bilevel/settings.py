"""Every choice of the bi-level scheme that the paper leaves open, with our default (docs/science.md: why)."""

from dataclasses import dataclass
from typing import Literal, get_args

from gessl.sigma import DIVERGENCES, Divergence

SolverName = Literal[
    "exact",
    "unroll",
    "replay",
    "truncated",
    "first_order",
    "parameter_matching",
    "central_difference",
    "one_sided_difference",
    "implicit_cg",
    "implicit_neumann",
    "aid_proximal",
]
SOLVER_NAMES: tuple[str, ...] = get_args(SolverName)
REVERSE = ("exact", "unroll", "replay", "truncated")  # differentiate the path itself, by reverse mode
IMPLICIT = ("implicit_cg", "implicit_neumann", "aid_proximal")  # differentiate the proximal problem's solution


@dataclass(frozen=True)
class SupportQuery:
    """The later version of the paper (experimental; see `gessl/bilevel/support_query.py`).

    Attributes:
        weight: of L_disc in the inner loss.
        temperature: of L_disc, > 0.
    """

    weight: float = 1.0
    temperature: float = 0.2

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature: {self.temperature} is not positive; the default is 0.2")


@dataclass(frozen=True)
class GesslSettings:
    """The bi-level scheme: inner loop, self-motivated target, outer loss, hyper-gradient.

    Attributes:
        inner_steps: K ≥ 0.
        target_steps: λ ≥ 0; 0 makes the divergence exactly zero.
        tasks: M ≥ 1 mini-batch tasks per outer step.
        inner_lr: α ≥ 0, of the inner steps and of the target's.
        inner_momentum: μ of the inner steps, in [0, 1), heavy ball as in torch's SGD; the velocity starts at 0.
        proximal: ρ ≥ 0; adds ρ/2 ‖θ - θ_0‖² to the loss of the inner steps (iMAML), which the implicit solvers need.
        adapt: what the inner steps change: "all", the "encoder" or the "heads".
        learn_inner_lr: learn one α per parameter tensor with the outer loss (Meta-SGD), from `inner_lr`.
        target_last: loss of the target's last step: "ssl" like the others, or "classification", -log π of the right
            image (the outer objective's own, as in bootstrapped meta-gradients).
        views: "fixed" for the same views at every step of a task, "fresh" for new ones at each, "fresh_targets" for new
            ones at the target's steps only.
        divergence: "kl" is KL(adapted ‖ target), the order of the σ-measurement; "reverse_kl" the other; "js"; "l2",
            squared, of the posteriors; "cosine", one minus it, of the embeddings.
        temperature: of π, > 0.
        symmetric: take π in both directions between the two views.
        embedding: what π compares: "projections" or "features".
        kl_weight: weight of the divergence in the outer loss.
        kl_scale: "absolute", or "per_path" to divide that weight by αλ: for small steps the divergence's gradient
            grows with the target's distance.
        ssl_weight: weight of the base loss in the outer loss.
        ssl_at: where the base loss is taken: at θ ("initial", free: it is the first inner gradient) or at θ_K
            ("adapted").
        solver: of the hyper-gradient; see `gessl/bilevel/solvers.py`. "exact" unrolls at K = 1 and replays beyond.
        last_steps: T ≥ 1, how many inner steps "truncated" goes back.
        radius: of the finite differences, > 0, relative to ‖θ‖.
        iterations: n ≥ 1, of "implicit_cg" and "implicit_neumann".
        stop_gradient: "held" takes what the base method puts under a stop-gradient as constant; "total" differentiates
            the path through it too (reverse-mode solvers only; matters where targets come from the same outputs).
        support_query: settings of the later version's scheme, which replaces the self-motivated target.
    """

    inner_steps: int = 1
    target_steps: int = 5
    tasks: int = 2
    inner_lr: float = 0.05
    inner_momentum: float = 0.0
    proximal: float = 0.0
    adapt: Literal["all", "encoder", "heads"] = "all"
    learn_inner_lr: bool = False
    target_last: Literal["ssl", "classification"] = "ssl"
    views: Literal["fixed", "fresh", "fresh_targets"] = "fixed"
    divergence: Divergence = "kl"
    temperature: float = 0.5
    symmetric: bool = True
    embedding: Literal["projections", "features"] = "projections"
    kl_weight: float = 1.0
    kl_scale: Literal["absolute", "per_path"] = "absolute"
    ssl_weight: float = 1.0
    ssl_at: Literal["initial", "adapted"] = "initial"
    solver: SolverName = "exact"
    last_steps: int = 1
    radius: float = 4e-3
    iterations: int = 5
    stop_gradient: Literal["held", "total"] = "held"
    support_query: SupportQuery | None = None

    def __post_init__(self) -> None:
        least = {"inner_steps": 0, "target_steps": 0, "tasks": 1, "inner_lr": 0, "proximal": 0, "last_steps": 1}
        for name, value in {**least, "iterations": 1}.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name}: {getattr(self, name)} is too small; give {value} or more")
        for name, usual in (("temperature", 0.5), ("radius", 4e-3)):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive; the usual value is {usual}")
        if not 0 <= self.inner_momentum < 1:
            raise ValueError(f"inner_momentum: {self.inner_momentum} is outside [0, 1); the default is 0")
        for name, choices in (("solver", SOLVER_NAMES), ("divergence", DIVERGENCES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: {getattr(self, name)!r} is unknown; choose {', '.join(choices)}")
        self._refuse_what_trains_nothing()
        self._refuse_what_a_solver_cannot_do()

    def _refuse_what_trains_nothing(self) -> None:
        if self.kl_weight == self.ssl_weight == 0:
            raise ValueError("kl_weight: it and ssl_weight are both 0, so nothing would be trained; raise one")
        if self.kl_scale == "per_path" and self.inner_lr * self.target_steps == 0:
            raise ValueError("kl_scale: per_path divides by inner_lr x target_steps, which is 0; take absolute")
        if self.learn_inner_lr and self.inner_steps == 0:
            raise ValueError("learn_inner_lr: there is no inner step to learn a rate for; raise inner_steps")
        if self.support_query and (self.target_steps or self.kl_weight or self.ssl_at != "adapted"):
            raise ValueError(
                "support_query: this scheme has no target, its outer loss is the base loss at θ_K; "
                "give target_steps: 0, kl_weight: 0, ssl_at: adapted"
            )

    def _refuse_what_a_solver_cannot_do(self) -> None:
        name = self.solver
        if name in IMPLICIT and self.proximal == 0:
            raise ValueError(
                f"proximal: {name} differentiates the solution of the proximal inner problem, and without that term "
                "the solution does not depend on θ, so the hyper-gradient is zero; give proximal > 0"
            )
        if name in IMPLICIT and self.adapt != "all":
            raise ValueError(f"adapt: {name} solves for all parameters; give adapt: all")
        if name not in REVERSE and self.stop_gradient == "total":
            raise ValueError(
                f"stop_gradient: with total the path's Jacobian is not symmetric, and {name} would give its product "
                f"from the wrong side; choose held, or one of {', '.join(REVERSE)}"
            )
        if name == "one_sided_difference" and self.adapt != "all":
            raise ValueError(f"adapt: {name} reuses inner gradients, which must be whole; take central_difference")
        if self.learn_inner_lr and name in (*IMPLICIT, "parameter_matching"):
            raise ValueError(f"learn_inner_lr: {name} has no derivative by the inner rate; choose exact")
        if self.support_query and name not in (*REVERSE, "central_difference", "one_sided_difference"):
            raise ValueError(f"solver: {name} gives the guiding network g no gradient; choose exact for support_query")

    @property
    def outer_weight(self) -> float:
        """Weight of the divergence, scaled."""
        return self.kl_weight / (self.inner_lr * self.target_steps) if self.kl_scale == "per_path" else self.kl_weight

    @property
    def view_sets(self) -> int:
        """S: how many sets of views a task needs."""
        return {
            "fixed": 1,
            "fresh": self.inner_steps + max(self.target_steps, 1),
            "fresh_targets": 1 + self.target_steps,
        }[self.views]

    def view_set(self, step: int) -> int:
        """Which of them inner step `step` < K, or target step `step` - K, sees."""
        later = max(step - self.inner_steps + 1, 0)
        return {"fixed": 0, "fresh": step, "fresh_targets": later}[self.views]

    @property
    def compared_views(self) -> int:
        """Which of them the outer loss compares adapted and target on."""
        return self.inner_steps if self.views == "fresh" else 0
