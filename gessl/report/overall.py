"""All accuracies of the report at once: the middle of each variant, how likely it is ahead, how many seeds it takes.

A stratum is a method on a data set; its runs are the seeds, its tasks what they were all scored on. Only what every
variant has is in it, so that variants are compared on the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gessl.aggregates import interquartile_mean, performance_profile, probability_of_improvement
from gessl.power import MOST_SEEDS, seeds_for
from gessl.report.collect import Collected
from gessl.report.plan import ReportPlan
from gessl.report.style import Drawing, canvas, finish, legend, look
from gessl.report.tables import Table
from gessl.statistics import Interval

WHERE = ["dataset", "method"]
TASK = ["target", "protocol", "metric", "task"]
THRESHOLDS = 201  # of the profile
ONE = 1.0  # point: the difference that the note on seeds is about


@dataclass(frozen=True)
class Overall:
    """What the page says of all accuracies.

    Attributes:
        lines: a name and its number each.
        scope: what they are made of.
        seeds: how many pairs of seeds a difference of one point would take; empty without two pairs of any.
    """

    lines: tuple[tuple[str, str], ...]
    scope: str
    seeds: str


def overall(plan: ReportPlan, collected: Collected, tables: list[Table]) -> Overall | None:
    """The numbers; None where there is no comparison, or nothing that all variants were scored on."""
    found = _strata(plan, collected.scores, tables)
    if not found:
        return None
    whole = {name: _whole(strata) for name, strata in found.items()}
    lines = [(name, f"interquartile mean {_text(interquartile_mean(whole[name]), 2, ' %')}") for name in found]
    for pair in plan.comparisons:
        likely = probability_of_improvement(whole[pair.treatment], whole[pair.control])
        name = f"{pair.treatment} against {pair.control}, {pair.label}"
        lines.append((name, f"probability of improvement {_text(likely, 2, '')}"))
    first = next(iter(found.values()))
    tasks = sum(stratum.shape[1] for stratum in first)
    runs = ", ".join(f"{sum(map(len, table))} of {name}" for name, table in whole.items())
    scope = f"{tasks} tasks, each of a method on a data set ({len(first)} of these); runs: {runs}"
    return Overall(tuple(lines), scope, _seeds(plan, found))


def draw_profile(plan: ReportPlan, collected: Collected, tables: list[Table]) -> Iterator[Drawing]:
    """The performance profile, where there is an overall."""
    found = _strata(plan, collected.scores, tables)
    if not found:
        return
    whole = {name: _whole(strata) for name, strata in found.items()}
    values = np.concatenate([scores.ravel() for table in whole.values() for scores in table])
    thresholds = np.linspace(np.floor(values.min()), np.floor(values.max()) + 1, THRESHOLDS)
    looks = {name: each for name, each in look(plan).items() if name in found}
    figure = canvas(9.0, 3.0)
    axes = figure.subplots()
    for name, (colour, _) in looks.items():
        profile = performance_profile(whole[name], thresholds)
        axes.plot(thresholds, 100 * profile.share, color=colour)
        if profile.lo is not None and profile.hi is not None:
            axes.fill_between(thresholds, 100 * profile.lo, 100 * profile.hi, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("accuracy (%)")
    axes.set_ylabel("runs above it (%)")
    axes.margins(x=0)
    legend(figure, looks)
    caption = (
        "Performance profile: the share of runs whose accuracy is above a threshold, averaged over tasks; bands are "
        "pointwise 95 % intervals. A variant whose line is nowhere below another's is at least as good throughout."
    )
    yield Drawing("profile", "overall", caption, finish(figure))


def _strata(plan: ReportPlan, scores: pd.DataFrame, tables: list[Table]) -> dict[str, list[pd.DataFrame]]:
    """The same strata, with the same tasks, of each variant that is compared.

    Each has accuracies in percent, a row per seed and a column per task; NaN where there is none.
    """
    names = dict.fromkeys(name for pair in plan.comparisons for name in (pair.control, pair.treatment))
    compared = [name for name in plan.variants if name in names]
    shown = {
        (table.dataset, table.target, table.protocol, table.metric)
        for table in tables
        if table.counts and table.unit == "%" and table.better == "higher" and not table.is_sigma
    }
    keys = scores[["dataset", *TASK[:3]]].apply(tuple, axis=1) if len(scores) else pd.Series(dtype=object)
    chosen = scores[keys.isin(shown) & np.isfinite(scores["value"].astype(float))] if len(scores) else scores
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in compared}
    for _, own in chosen.groupby(WHERE, sort=False):
        tables_of = {name: _wide(own[own["variant"] == name]) for name in compared}
        first = next(iter(tables_of.values()), pd.DataFrame())
        common = [task for task in first.columns if all(task in wide.columns for wide in tables_of.values())]
        strata = {name: wide[common] for name, wide in tables_of.items()}
        if common and all(len(stratum.dropna()) for stratum in strata.values()):
            for name, stratum in strata.items():
                found[name].append(stratum)
    return found if all(found.values()) else {}


def _wide(scores: pd.DataFrame) -> pd.DataFrame:
    rows = scores.drop_duplicates(["seed", *TASK])
    wide = rows.pivot(index="seed", columns=TASK, values="value")
    return wide.astype(float).sort_index(axis=0).sort_index(axis=1)


def _whole(strata: list[pd.DataFrame]) -> list[np.ndarray]:
    """The runs that have all of a stratum's scores."""
    return [stratum.dropna().to_numpy() for stratum in strata]


def _text(found: Interval, decimals: int, unit: str) -> str:
    text = f"{found.mean:.{decimals}f}{unit}"
    if found.lo is None or found.hi is None:
        return f"{text} (a single run allows no interval)"
    return f"{text} ({found.lo:.{decimals}f} to {found.hi:.{decimals}f})"


def _seeds(plan: ReportPlan, found: dict[str, list[pd.DataFrame]]) -> str:
    """How many pairs of seeds one point takes, with the spreads of the paired differences that are seen."""
    spreads, pairs = [], []
    for pair in plan.comparisons:
        for treatment, control in zip(found[pair.treatment], found[pair.control], strict=True):
            differences = treatment - control  # by seed and task
            counted = differences.count()
            spreads += list(differences.std()[counted > 1])
            pairs += list(counted[counted > 1])
    if not spreads:
        return ""
    low, middle, high = np.quantile(spreads, [0, 0.5, 1], method="higher")
    return (
        "How many seeds would a difference of one point take? The spread of the paired differences over seeds is "
        f"s = {middle:.2f} points in the median of {len(spreads)} comparisons ({low:.2f} to {high:.2f}): with that, "
        f"{_count(middle)} pairs of seeds ({_count(low)} to {_count(high)}). It is the least n at which a paired "
        "t-test (two-sided, 5 %) finds a true difference of one point with probability 0.8: P(|T| > t) ≥ 0.8, where t "
        "is the 97.5 % point of Student's t with n − 1 degrees of freedom and T follows the noncentral t with shift "
        f"√n / s. Each s is of {_range(min(pairs), max(pairs))} pairs, so it is itself uncertain."
    )


def _count(spread: float) -> str:
    seeds = seeds_for(ONE, float(spread))
    return f"more than {MOST_SEEDS:,}" if seeds is None else str(seeds)


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"
