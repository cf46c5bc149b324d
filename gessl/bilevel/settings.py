"""Every choice of the bi-level scheme that the paper leaves open, with our default (docs/science.md: why)."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Self

from gessl.bilevel.natural import GradientSettings, PlainGradient
from gessl.settings import Misfit, NumberOr, Range, Settings, Tagged, Temperature, Weight, variants
from gessl.sigma import Divergence

FewSteps = Annotated[int, Range(ge=0, le=1000)]
SomeSteps = Annotated[int, Range(ge=1, le=1000)]

REVERSE = ("exact", "unroll", "replay", "truncated")  # differentiate the path itself, by reverse mode
IMPLICIT = ("implicit_cg", "implicit_neumann", "aid_proximal")  # differentiate the proximal problem's solution
HIGHEST_RATE = 1000.0
# of the target, of π, and of how and on what they are compared
OF_TARGET = (
    *("target_last", "divergence", "temperature", "symmetric", "embedding"),
    *("kl_scale", "kl_gradient", "judged_on"),
)


@dataclass(frozen=True)
class PlainSolver(Settings):
    """A solver without settings of its own; "exact" unrolls at K = 1 and replays beyond."""

    name: Literal["exact", "unroll", "replay", "first_order", "parameter_matching", "aid_proximal"] = "exact"


@dataclass(frozen=True)
class Truncated(Settings):
    """Exact through the last inner steps.

    Attributes:
        last_steps: T ≥ 1, how many inner steps it goes back.
    """

    name: Literal["truncated"] = "truncated"
    last_steps: SomeSteps = 1


@dataclass(frozen=True)
class Difference(Settings):
    """Finite differences of gradients.

    Attributes:
        radius: of the finite differences, > 0, relative to ‖θ‖.
    """

    name: Literal["central_difference", "one_sided_difference"] = "central_difference"
    radius: Annotated[float, Range(gt=0, le=10)] = 4e-3


@dataclass(frozen=True)
class Series(Settings):
    """Implicit differentiation by repeated Hessian-vector products.

    Attributes:
        iterations: n ≥ 1, of conjugate gradients or of the Neumann series.
    """

    name: Literal["implicit_cg", "implicit_neumann"] = "implicit_cg"
    iterations: SomeSteps = 5


SolverSettings = Annotated[PlainSolver | Truncated | Difference | Series, Tagged()]
SOLVER_NAMES = tuple(variants(SolverSettings))


def solver_named(name: str, **own: Any) -> SolverSettings:
    """The settings of a solver: `own`, and defaults for the rest."""
    made: SolverSettings = variants(SolverSettings)[name](name=name, **own)
    return made


@dataclass(frozen=True)
class ByCurvature(Settings):
    """An inner rate by the base loss: α = c / λ_max, measured as the run goes (`gessl/training/inner_rate.py`).

    Attributes:
        curvature: c > 0. At 1 no direction overshoots, from 2 on the stiffest one diverges.
    """

    curvature: Annotated[float, Range(gt=0, le=1000)]

    def __str__(self) -> str:
        return f"curvature: {self.curvature:g}"


InnerRate = Annotated[Annotated[float, Range(ge=0, le=HIGHEST_RATE)] | ByCurvature, NumberOr()]


@dataclass(frozen=True)
class SupportQuery(Settings):
    """The later version of the paper (experimental; see `gessl/bilevel/support_query.py`).

    Attributes:
        weight: of L_disc in the inner loss.
        temperature: of L_disc, > 0.
    """

    weight: Weight = 1.0
    temperature: Temperature = 0.2


@dataclass(frozen=True)
class GesslSettings(Settings):
    """The bi-level scheme: inner loop, self-motivated target, outer loss, hyper-gradient.

    Attributes:
        inner_steps: K ≥ 0.
        target_steps: λ ≥ 0; 0 makes the divergence exactly zero.
        tasks: M ≥ 1 mini-batch tasks per outer step.
        inner_lr: α ≥ 0, of the inner steps and of the target's; or `{curvature: c}`, by the base loss's own curvature.
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
        judged_on: the mini-batch that the divergence, and the base loss at θ_K, are taken on: the "same" that the inner
            loop adapts on, or the "other" one of its task, X′, with images of its own.
        kl_gradient: of the divergence, "plain" or "natural", and its own settings; see `gessl/bilevel/natural.py`.
        solver: of the hyper-gradient, and its own settings; see `gessl/bilevel/solvers.py`.
        stop_gradient: "held" takes what the base method puts under a stop-gradient as constant; "total" differentiates
            the path through it too (reverse-mode solvers only; matters where targets come from the same outputs).
        support_query: settings of the later version's scheme, which replaces the self-motivated target.
    """

    inner_steps: FewSteps = 1
    target_steps: FewSteps = 5
    tasks: SomeSteps = 2
    inner_lr: InnerRate = ByCurvature(1.0)
    inner_momentum: Annotated[float, Range(ge=0, lt=1)] = 0.0
    proximal: Annotated[float, Range(ge=0, le=1e6)] = 0.0
    adapt: Literal["all", "encoder", "heads"] = "all"
    learn_inner_lr: bool = False
    target_last: Literal["ssl", "classification"] = "ssl"
    views: Literal["fixed", "fresh", "fresh_targets"] = "fixed"
    divergence: Divergence = "kl"
    temperature: Temperature = 0.5
    symmetric: bool = True
    embedding: Literal["projections", "features"] = "projections"
    kl_weight: Weight = 1.0
    kl_scale: Literal["absolute", "per_path"] = "absolute"
    ssl_weight: Weight = 1.0
    ssl_at: Literal["initial", "adapted"] = "initial"
    judged_on: Literal["same", "other"] = "same"
    kl_gradient: GradientSettings = field(default_factory=PlainGradient)
    solver: SolverSettings = PlainSolver()
    stop_gradient: Literal["held", "total"] = "held"
    support_query: SupportQuery | None = None

    def contradictions(self) -> Iterator[Misfit]:
        """What would train nothing, or is not read, and what a solver cannot do."""
        yield from self._what_trains_nothing()
        yield from self._what_judges_nothing()
        yield from self._what_has_no_natural_gradient()
        yield from self._what_support_query_does_not_read()
        yield from self._what_a_solver_cannot_do()

    def _what_trains_nothing(self) -> Iterator[Misfit]:
        if self.kl_weight == self.ssl_weight == 0:
            text = "it and ssl_weight are both 0, so nothing would be trained; raise one"
            yield Misfit(("kl_weight", "ssl_weight"), text)
        if self.kl_scale == "per_path" and 0 in (self.inner_lr, self.target_steps) and not self.support_query:
            text = "per_path divides by inner_lr x target_steps, which is 0; take absolute"
            yield Misfit(("kl_scale", "inner_lr", "target_steps"), text)
        if self.learn_inner_lr and self.inner_steps == 0:
            text = "there is no inner step to learn a rate for; raise inner_steps"
            yield Misfit(("learn_inner_lr", "inner_steps"), text)
        if self.learn_inner_lr and isinstance(self.inner_lr, ByCurvature):
            yield Misfit(("learn_inner_lr", "inner_lr"), "learned rates start from a number; give inner_lr one")

    def _what_judges_nothing(self) -> Iterator[Misfit]:
        if self.judged_on == "same" or self.support_query:
            return
        if self.inner_steps == 0:
            text = "there is no inner step that adapts on one mini-batch, to be judged on the other; raise inner_steps"
            yield Misfit(("judged_on", "inner_steps"), text)
        compared = self.target_steps and self.kl_weight and self.solver.name != "parameter_matching"
        if not compared and not (self.ssl_at == "adapted" and self.ssl_weight):
            text = (
                "no term of the outer loss is taken on the other mini-batch: no divergence (kl_weight, target_steps; "
                "parameter_matching has none), nor the base loss at θ_K (ssl_at: adapted); take same"
            )
            yield Misfit(("judged_on", "kl_weight", "target_steps", "solver", "ssl_at", "ssl_weight"), text)

    def _what_has_no_natural_gradient(self) -> Iterator[Misfit]:
        if self.kl_gradient == PlainGradient() or self.support_query:
            return
        if self.divergence in ("l2", "cosine"):
            text = f"{self.divergence} is no divergence whose curvature is F; take kl, reverse_kl or js, or plain"
            yield Misfit(("kl_gradient", "divergence"), text)
        if 0 in (self.kl_weight, self.target_steps) or self.solver.name == "parameter_matching":
            text = "no gradient of the divergence is taken (kl_weight, target_steps, parameter_matching); take plain"
            yield Misfit(("kl_gradient", "kl_weight", "target_steps", "solver"), text)

    def _what_support_query_does_not_read(self) -> Iterator[Misfit]:
        if self.support_query is None:
            return
        if self.target_steps or self.kl_weight or self.ssl_at != "adapted":
            text = (
                "this scheme has no target, its outer loss is the base loss at θ_K; "
                "give target_steps: 0, kl_weight: 0, ssl_at: adapted"
            )
            yield Misfit(("support_query", "target_steps", "kl_weight", "ssl_at"), text)
        default = GesslSettings()
        unread = [key for key in OF_TARGET if getattr(self, key) != getattr(default, key)]
        if self.views == "fresh_targets":
            unread.append("views")
        if unread:
            text = f"support_query has no target and no π, and does not read {', '.join(unread)}; leave "
            yield Misfit((*unread, "support_query"), text + ("it out" if len(unread) == 1 else "them out"))

    def _what_a_solver_cannot_do(self) -> Iterator[Misfit]:
        name = self.solver.name
        if name in IMPLICIT and self.proximal == 0:
            text = (
                f"{name} differentiates the solution of the proximal inner problem, and without that term "
                "the solution does not depend on θ, so the hyper-gradient is zero; give proximal > 0"
            )
            yield Misfit(("proximal", "solver"), text)
        if name in IMPLICIT and self.adapt != "all":
            yield Misfit(("adapt", "solver"), f"{name} solves for all parameters; give adapt: all")
        if name not in REVERSE and self.stop_gradient == "total":
            text = (
                f"with total the path's Jacobian is not symmetric, and {name} would give its product "
                f"from the wrong side; choose held, or one of {', '.join(REVERSE)}"
            )
            yield Misfit(("stop_gradient", "solver"), text)
        if name == "one_sided_difference" and self.adapt != "all":
            text = f"{name} reuses inner gradients, which must be whole; take central_difference"
            yield Misfit(("adapt", "solver"), text)
        if self.learn_inner_lr and name in (*IMPLICIT, "parameter_matching"):
            text = f"{name} has no derivative by the inner rate; choose exact"
            yield Misfit(("learn_inner_lr", "solver"), text)
        if self.support_query and name not in (*REVERSE, "central_difference", "one_sided_difference"):
            text = f"{name} gives the guiding network g no gradient; choose exact for support_query"
            yield Misfit(("solver", "support_query"), text)

    @property
    def rate(self) -> float:
        """α, as a number: one by curvature must have been measured (`at_rate`)."""
        assert not isinstance(self.inner_lr, ByCurvature), "the inner rate has not been measured"
        return self.inner_lr

    def at_rate(self, rate: float) -> Self:
        """The same with α = `rate`."""
        return replace(self, inner_lr=rate)

    @property
    def outer_weight(self) -> float:
        """Weight of the divergence, scaled."""
        return self.kl_weight / (self.rate * self.target_steps) if self.kl_scale == "per_path" else self.kl_weight

    @property
    def batches(self) -> int:
        """How many mini-batches a task has."""
        return 2 if self.judged_on == "other" else 1

    @property
    def view_sets(self) -> int:
        """S: how many sets of views a task needs of the mini-batch that the inner loop adapts on."""
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
    def end_views(self) -> int:
        """Which of them shows θ_K the mini-batch that the inner loop adapts on."""
        return self.inner_steps if self.views == "fresh" else 0

    @property
    def compared_views(self) -> int:
        """Which of them the outer loss compares adapted and target on; S, after them, shows the other images."""
        return self.view_sets if self.judged_on == "other" else self.end_views
