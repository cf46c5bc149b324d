"""What an experiment compares: its comparisons, and the hypotheses of its study."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from gessl.grid.cells import PlannedScience
from gessl.grid.evaluations import Evaluation
from gessl.grid.reading import Fault, Findings, unknown
from gessl.registration.study import Hypothesis, Study
from gessl.report.plan import Comparison
from gessl.tables.scores import Card


def check_comparisons(
    comparisons: Sequence[Comparison], known: set[str], planned: Iterable[PlannedScience], findings: Findings
) -> None:
    """Note comparisons of variants that there are not, of the same two again, and of the same runs."""
    runs = _runs_of(planned)
    pairs: set[frozenset[str]] = set()
    for place, comparison in enumerate(comparisons):
        treatment, control = pair = comparison.treatment, comparison.control
        findings.extend([fault.under("comparisons", place) for fault in _not_known(comparison, known)])
        if frozenset(pair) in pairs:
            findings.add(("comparisons", place), f"{treatment} and {control} are compared already; keep one")
        pairs.add(frozenset(pair))
        if treatment in runs and runs[treatment] == runs.get(control):
            text = f"{treatment} and {control} are the same runs, so nothing differs; change one, or leave it out"
            findings.add(("comparisons", place), text)


def _runs_of(planned: Iterable[PlannedScience]) -> dict[str, list[str]]:
    """The ids of the runs of each variant."""
    runs: dict[str, list[str]] = {}
    for cell in planned:
        runs.setdefault(cell.variant, []).append(cell.id)
    return runs


def _not_known(pair: Comparison | Hypothesis, known: set[str]) -> Iterator[Fault]:
    for role in ("treatment", "control"):
        if known and (name := getattr(pair, role)) not in known:
            yield Fault(((role,),), unknown("variant", name, known))


def with_axes(study: Study, methods: Sequence[str], datasets: Sequence[str]) -> Study:
    """The study, each hypothesis with the name of its method and data set where there is one alone."""
    method, dataset = (names[0] if len(names) == 1 else "" for names in (methods, datasets))
    named = (replace(one, method=one.method or method, dataset=one.dataset or dataset) for one in study.hypotheses)
    return replace(study, hypotheses=tuple(named))


def check_study(
    study: Study,
    known: set[str],
    axes: Mapping[str, Sequence[str]],
    asked: Sequence[Evaluation],
    planned: Iterable[PlannedScience],
    findings: Findings,
) -> None:
    """Note hypotheses about what the experiment does not train or score.

    Args:
        study: as `with_axes` gives it.
        known: variants.
        axes: the experiment's methods and data sets: `method` and `dataset`.
        asked: what its runs are scored by.
        planned: its runs.
        findings: takes in what is wrong.
    """
    runs = _runs_of(planned)
    for place, one in enumerate(study.hypotheses):
        at = ("study", "hypotheses", place)
        findings.extend([fault.under(*at) for fault in _not_known(one, known)])
        if one.treatment in runs and runs[one.treatment] == runs.get(one.control):
            findings.add(at, f"{one.treatment} and {one.control} are the same runs, so there is nothing to test")
        for key, names in axes.items():
            given = getattr(one, key)
            if not given:
                findings.add(at, f"{one.name}: name its {key}, for the experiment has several: {', '.join(names)}")
            elif given not in names:
                findings.add((*at, key), unknown(key, given, list(names)))
        _check_measure(one, one.dataset or axes["dataset"][0], asked, (*at, "measure"), findings)


def _check_measure(
    one: Hypothesis, own: str, asked: Sequence[Evaluation], at: tuple[str | int, ...], findings: Findings
) -> None:
    """Note a measure that runs on `own` are not scored by, or that nobody may compare."""
    scored: dict[str, dict[str, Card]] = {}
    for evaluation in asked:
        for target in evaluation.targets(own):
            scored.setdefault(target, {}).update(evaluation.protocol.cards())
    if one.measure.target not in scored:
        text = unknown("data set that runs are scored on", one.measure.target, list(scored))
        findings.add((*at, "target"), text)
        return
    cards = scored[one.measure.target]
    if one.measure.protocol not in cards:
        text = unknown("score under `evaluation`", one.measure.protocol, list(cards))
        findings.add((*at, "protocol"), text)
    elif invalid := cards[one.measure.protocol].invalid:
        findings.add((*at, "protocol"), f"{one.measure.protocol} is shown, but compared by nobody: {invalid}")
