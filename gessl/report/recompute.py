"""The cells of a finished report, computed again from the score tables that it was made from."""

import math
from collections.abc import Mapping, Set
from typing import Any

import pandas as pd

from gessl.report.collect import Collected, read_data_cards, read_run_scores
from gessl.report.export import ids
from gessl.report.plan import Comparison, PlannedRun, ReportPlan
from gessl.report.states import FINISHED
from gessl.report.tables import build_tables
from gessl.tables.metrics import DATA_WAIT


def recompute(config: Mapping[str, Any], tables: Set[str], wanted: Set[str]) -> dict[str, dict[str, Any]]:
    """What `ids.json` must say of the cells that are made of some scores.

    The plan alone says which of two scores is the treatment's, and whose seeds are paired, so it is taken from the
    report's record, and the tables are built as the report builds them.

    Args:
        config: the report's settings, as its record states them.
        tables: ids of the runs whose score tables the report was made from.
        wanted: ids of the scores; no other row is looked at.

    Returns:
        Entries by the cell's id.

    Raises:
        UserError: a score table cannot be read.
        ValueError, TypeError, LookupError: `config` holds no plan of a report, or the scores fit none.
    """
    runs = [PlannedRun(**{**run, "scores": tuple(map(tuple, run["scores"]))}) for run in config["runs"]]
    plan = ReportPlan(
        grid=config["grid"],
        title=config["title"],
        runs=tuple(runs),
        comparisons=tuple(Comparison(**pair) for pair in config["comparisons"]),
    )
    cards = read_data_cards(plan)
    read = [table for run in runs if run.id in tables for table in read_run_scores(run, cards)]
    if not read:
        return {}
    found = [rows[rows["id"].isin(wanted)] for rows in read]
    costs = dict.fromkeys(("seconds", "images", DATA_WAIT), math.nan)
    rows = [{**vars(run), "state": FINISHED, "detail": "", **costs, "climbs": False} for run in runs]
    nothing = pd.DataFrame()
    return ids(
        build_tables(plan, Collected(pd.DataFrame(rows), pd.concat(found), nothing, nothing, {}, {}, {}, {}, {}))
    )
