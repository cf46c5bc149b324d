"""Which run goes on from which: branches from their trunks, and to save time what a trunk is the beginning of."""

from collections.abc import Mapping

from gessl.grid.cells import PlannedScience


def goes_on(runs: Mapping[str, PlannedScience]) -> dict[str, str]:
    """By the id of a run, the trunk that it goes on from.

    For a longer trunk of the same run, and for that run itself, this changes no bit: they would come by there anyway.
    """
    found = {run: cell.trunk.id for run, cell in runs.items() if cell.trunk}
    trunks = [run for run, cell in runs.items() if cell.science.stops_at]
    longest: dict[str, str] = {}
    for trunk in sorted(trunks, key=lambda run: runs[run].science.end):
        whole = runs[trunk].whole
        if whole in longest:
            found[trunk] = longest[whole]
        longest[whole] = trunk
    return found | {run: trunk for run, trunk in longest.items() if run in runs}
