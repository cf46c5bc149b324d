"""Does σ order encoders as what one wants of them does?

For each σ and each accuracy on the same data: Spearman's ρ over the runs of a grid, once over all of them, once over
methods at the longest training, once over lengths within a method (the mean over methods). σ is turned round, so 1 is
the same order. *Beyond* is the partial ρ of σ and the accuracy after adaptation, given 1-shot accuracy: what σ knows
that a frozen encoder's accuracy does not say. Intervals are percentiles of a bootstrap that draws whole methods, since
the runs of a method are alike.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gessl.grid.experiment import Experiment
from gessl.layout import scores_dir
from gessl.statistics import rank_correlation
from gessl.tables.scores import read_scores
from studies.study import finished, grids, study, write

Key = tuple[str, str, str]  # protocol, task, metric
FROZEN: Key = ("fewshot/proto-v1", "5w1s", "accuracy")
ADAPTED: Key = ("adaptation/labels-v1", "5w5s-k100", "accuracy")
WANTED: dict[str, Key] = {
    "5w1s": FROZEN,
    "5w5s": ("fewshot/proto-v1", "5w5s", "accuracy"),
    "adapted": ADAPTED,
    "area": ("adaptation/labels-v1", "5w5s-area", "accuracy"),
}
RESAMPLES = 500
ENDS = (0.025, 0.975)


class Scored(NamedTuple):
    """A run on one target: its method, its length in steps, and its scores."""

    method: str
    steps: int
    scores: Mapping[Key, float]


class Correlation(NamedTuple):
    """ρ with its interval; NaN where there is none."""

    rho: float
    lo: float
    hi: float


Statistic = Callable[[Sequence[Scored]], float]


def main(arguments: list[str] | None = None) -> int:
    """Read the scores, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, nargs="+", help="an experiment file whose runs are finished")
    experiments = grids(parser.parse_args(arguments).config)
    with study("sigma", experiments) as step:
        found = {target: judged(runs) for target, runs in by_target(experiments).items()}
        table = "\n".join(markdown(target, rows) for target, rows in found.items())
        write(step, table, {"targets": found}, [])
    print(table)
    return 0


def by_target(experiments: Iterable[Experiment]) -> dict[str, list[Scored]]:
    """Finished runs by what they are scored on."""
    found: dict[str, list[Scored]] = {}
    for experiment in experiments:
        for cell in experiment.runs():
            if not finished(cell.id):
                print(f"sigma: {cell.id} is not finished, so not counted", file=sys.stderr)
                continue
            targets = {target for each in experiment.evaluations for target in each.targets(cell.science.dataset)}
            for target in sorted(targets):
                run = Scored(cell.science.method_name, cell.science.train.steps, _scores(scores_dir(cell.id, target)))
                found.setdefault(target, []).append(run)
    return found


def _scores(folder: Path) -> dict[Key, float]:
    rows = [row for path in sorted(folder.glob("*/scores.csv")) for row in read_scores(path.parent)]
    return {(row["protocol"], row["task"], row["metric"]): float(row["value"]) for row in rows}


def judged(runs: Sequence[Scored]) -> dict[str, dict[str, Correlation]]:
    """By σ, by what it is compared with and over which runs."""
    sigmas = sorted({key for run in runs for key in run.scores if key[2] == "sigma_mean"})
    found: dict[str, dict[str, Correlation]] = {}
    for sigma in sigmas:
        row = found.setdefault(f"{sigma[0]} {sigma[1]}", {})
        for name, wanted in WANTED.items():
            row[f"{name}, all"] = with_interval(over_all(sigma, wanted), runs)
            row[f"{name}, methods"] = with_interval(over_methods(sigma, wanted), runs)
            row[f"{name}, lengths"] = with_interval(over_lengths(sigma, wanted), runs)
        row["beyond"] = with_interval(beyond(sigma), runs)
    return found


def _rho(sigma: Key, wanted: Key, runs: Iterable[Scored]) -> float:
    """Of σ, turned round, and an accuracy, over the runs that have both; NaN with fewer than three values."""
    pairs = [(-run.scores[sigma], run.scores[wanted]) for run in runs if {sigma, wanted} <= run.scores.keys()]
    finite = [pair for pair in pairs if all(map(math.isfinite, pair))]
    found = rank_correlation(*zip(*finite, strict=True)) if len(finite) > 2 else None
    return math.nan if found is None else found


def over_all(sigma: Key, wanted: Key) -> Statistic:
    """Over all runs."""
    return lambda runs: _rho(sigma, wanted, runs)


def over_methods(sigma: Key, wanted: Key) -> Statistic:
    """Over methods, each trained for longest."""
    return lambda runs: _rho(sigma, wanted, [run for run in runs if run.steps == max(each.steps for each in runs)])


def over_lengths(sigma: Key, wanted: Key) -> Statistic:
    """Over the lengths of a method: the mean over methods."""

    def mean(runs: Sequence[Scored]) -> float:
        groups: dict[str, list[Scored]] = {}
        for run in runs:
            groups.setdefault(run.method, []).append(run)
        # a method that was drawn twice counts twice, and its runs twice make the same ρ
        found = [(_rho(sigma, wanted, group), len(group)) for group in groups.values()]
        known = [(rho, weight) for rho, weight in found if not math.isnan(rho)]
        return sum(rho * weight for rho, weight in known) / sum(weight for _, weight in known) if known else math.nan

    return mean


def beyond(sigma: Key) -> Statistic:
    """The partial ρ of σ and adapted accuracy, given frozen accuracy."""

    def partial(runs: Sequence[Scored]) -> float:
        both, first = _rho(sigma, ADAPTED, runs), _rho(sigma, FROZEN, runs)
        second = -_rho(ADAPTED, FROZEN, runs)  # neither is to be turned round
        left = (1 - first**2) * (1 - second**2)
        return (both - first * second) / math.sqrt(left) if left > 1e-12 else math.nan

    return partial


def with_interval(statistic: Statistic, runs: Sequence[Scored], seed: int = 0) -> Correlation:
    """A statistic of runs, with the interval of a bootstrap over methods."""
    random, groups = np.random.default_rng(seed), dict[str, list[Scored]]()
    for run in runs:
        groups.setdefault(run.method, []).append(run)
    whole, members = statistic(runs), list(groups.values())
    drawn = [
        statistic([run for place in random.integers(len(members), size=len(members)) for run in members[place]])
        for _ in range(RESAMPLES)
    ]
    known = [value for value in drawn if not math.isnan(value)]
    if math.isnan(whole) or len(members) < 2 or not known:
        return Correlation(whole, math.nan, math.nan)
    lo, hi = np.quantile(known, ENDS)
    return Correlation(whole, float(lo), float(hi))


def markdown(target: str, rows: Mapping[str, Mapping[str, Correlation]]) -> str:
    """A table of one target: a row for each σ."""
    columns = list(next(iter(rows.values()), {}))
    lines = [
        f"On {target}: ρ (95 % interval)",
        "",
        f"| σ | {' | '.join(columns)} |",
        f"| --- |{' --: |' * len(columns)}",
    ]
    for name, row in rows.items():
        cells = [f"{rho:.2f} ({lo:.2f} to {hi:.2f})" for rho, lo, hi in (row[column] for column in columns)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
