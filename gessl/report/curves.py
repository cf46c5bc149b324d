"""The learning curves: one line per run, which leads to the record of its training."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gessl.report.collect import Collected
from gessl.report.plan import ReportPlan, file_name
from gessl.report.style import INK, Drawing, canvas, crowded, finish, legend, link, look, record_anchor

POINTS = 200  # per learning curve
METRICS = {
    "loss": "loss",
    "ssl_loss": "SSL loss",
    "divergence": "divergence from the target",
    "feature_std": "feature std",
    "effective_rank": "effective rank",
    "pi_entropy": "entropy of π (nats)",
}
IF_LOGGED = {"curvature": "λ_max, by which α is set"}


def draw_curves(plan: ReportPlan, collected: Collected) -> Iterator[Drawing]:
    """A figure per data set and method of which any run has finished."""
    looks = look(plan)
    for dataset in plan.datasets:
        for method in plan.methods(dataset):
            curves = collected.curves
            curves = curves[(curves["dataset"] == dataset) & (curves["method"] == method)]
            if curves.empty:
                continue
            shown = METRICS | {name: title for name, title in IF_LOGGED.items() if curves[name].notna().any()}
            figure = canvas(11.0, 4.0)
            grid = figure.subplots(2, len(shown), sharex="row", sharey="col")
            for line, x in enumerate(("step", "images")):
                for axes, (metric, title) in zip(grid[line], shown.items(), strict=True):
                    _curve(axes, curves, x, metric, looks, None if crowded(plan) else collected.records)
                    axes.set_xlabel("outer step" if x == "step" else "images drawn")
                    axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 4), useMathText=False)
                    if line == 0:
                        axes.set_title(title)
            legend(figure, looks)
            what = "median and middle 80 % of the seeds" if crowded(plan) else "one line per seed"
            caption = f"{dataset}, {method}: {what}; above against outer steps, below against images drawn."
            yield Drawing(file_name("curves", dataset, method), "curves", caption, finish(figure))


def _curve(
    axes: Axes,
    curves: pd.DataFrame,
    x: str,
    metric: str,
    looks: dict[str, tuple[str, str]],
    records: dict[str, Any] | None,
) -> None:
    """A line per seed, which leads to its one of `records`; without them, median and band of all seeds."""
    finite = curves[curves[metric].map(math.isfinite)]
    for variant, own in finite.groupby("variant", sort=True):
        colour = looks[variant][0]
        if records is None:
            bands = _thinned(own.groupby(x)[metric].quantile([0.1, 0.5, 0.9]).unstack())
            axes.fill_between(bands.index, bands[0.1], bands[0.9], color=colour, alpha=0.2, linewidth=0)
            axes.plot(bands.index, bands[0.5], color=colour, linewidth=0.9)
            continue
        for _, run in own.groupby("seed", sort=True):
            line, leads = _thinned(run), link(record_anchor(records[run["run"].iloc[0]][0]["id"]))
            axes.plot(line[x], line[metric], color=colour, linewidth=0.9, alpha=0.85, url=leads)
    if finite.empty:
        axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", va="center", color=INK, alpha=0.5)


def _thinned(line: pd.DataFrame) -> pd.DataFrame:
    """At most `POINTS` rows, evenly spaced, the first and the last among them."""
    return line.iloc[np.unique(np.linspace(0, len(line) - 1, min(POINTS, len(line))).round().astype(int))]
