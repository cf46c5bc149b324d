"""What became of the hypotheses of a study, and whether they were registered before their scores were made."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from gessl.files import as_json, sha256_file
from gessl.layout import unsealed_dir
from gessl.records.record import Record, is_maker, read_record
from gessl.registration.decide import UNDECIDED, Decision, Differences, decide
from gessl.registration.seal import read_registration, registration_file, unsealed_file
from gessl.registration.study import Hypothesis, Study
from gessl.report.collect import Collected
from gessl.report.plan import ReportPlan
from gessl.statistics import item_error


@dataclass(frozen=True)
class Tested:
    """A hypothesis and what became of it.

    Attributes:
        hypothesis: as it was written down.
        decision: see `gessl.registration.decide`.
        planned: pairs of seeds.
        unit: of the scores.
        scores: ids of the score rows that it rests on, sorted.
    """

    hypothesis: Hypothesis
    decision: Decision
    planned: int
    unit: str
    scores: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The numbers in words."""
        found, one = self.decision, self.hypothesis
        if math.isnan(found.mean):
            return f"{one.treatment} and {one.control} do not have both scores of all {self.planned} seeds"
        difference = f"{found.mean:+.3g} ({found.lo:+.3g} to {found.hi:+.3g}) {self.unit}".strip()
        small = ""
        if one.better_by is not None and found.verdict != UNDECIDED and found.lo > 0 and found.hi < one.better_by:
            small = f"; it is smaller than the {one.better_by:g} that would matter"
        tests = f"p {found.confirms:.2g} to confirm, {found.refutes:.2g} to refute"
        return f"{one.treatment} less {one.control}: {difference}, {found.n} pairs of seeds; {tests}{small}"


@dataclass(frozen=True)
class StudyReport:
    """A study, and what became of it; `unregistered` says why it is no registered one, and is empty if it is."""

    study: Study
    tested: tuple[Tested, ...]
    unregistered: str

    @property
    def standing(self) -> str:
        """Whether this is a test."""
        if self.unregistered:
            return f"⚠ This is a finding and not a test: {self.unregistered}."
        return (
            "It was registered before any of its scores was made: each of these scores has the registration, and the"
            " list of all trained runs, in its chain of records."
        )

    @property
    def method(self) -> str:
        """How it was decided."""
        return (
            "Student's t tests of differences paired by seed, with no smaller an error than the test items allow; in"
            " brackets the two-sided interval at"
            f" {100 * (1 - self.study.alpha):g} %, not corrected. Each p is corrected over all hypotheses (Holm),"
            f" confirmations and refutations apart; it decides at {self.study.alpha:g} / 2. Equivalence is shown by two"
            " one-sided tests. A positive difference is in favour of the first variant named."
        )


def study_report(plan: ReportPlan, collected: Collected) -> StudyReport | None:
    """The decisions on a plan's hypotheses; None where it has none.

    Raises:
        UserError: the registration, or a record of it, cannot be read.
    """
    study = plan.study
    if study is None:
        return None
    pairs = {one.name: _pairs(one, collected.scores) for one in study.hypotheses}
    found = {one.name: _differences(one, plan, pairs[one.name]) for one in study.hypotheses}
    decisions = decide(study, found)
    tested = tuple(_tested(one, plan, pairs[one.name], decisions[one.name]) for one in study.hypotheses)
    used = {record for frame in pairs.values() for record in frame["record"]}
    return StudyReport(study, tested, _unregistered(plan, study, used, collected))


def _tested(one: Hypothesis, plan: ReportPlan, rows: pd.DataFrame, decision: Decision) -> Tested:
    unit = str(rows["unit"].iloc[0]) if len(rows) else ""
    return Tested(one, decision, len(_seeds(one, plan)), unit, tuple(sorted(set(rows["id"]))))


def _pairs(one: Hypothesis, scores: pd.DataFrame) -> pd.DataFrame:
    """The score rows that a hypothesis is about."""
    measure = one.measure
    wanted = {
        "dataset": one.dataset, "method": one.method, "target": measure.target, "protocol": measure.protocol,
        "task": measure.task, "metric": measure.metric,
    }  # fmt: skip
    chosen = scores["variant"].isin((one.treatment, one.control))
    for column, value in wanted.items():
        chosen &= scores[column] == value
    return scores[chosen]


def _seeds(one: Hypothesis, plan: ReportPlan) -> list[int]:
    """Those under which both variants were planned."""
    of = {
        name: {
            run.seed for run in plan.runs if (run.variant, run.method, run.dataset) == (name, one.method, one.dataset)
        }
        for name in (one.treatment, one.control)
    }
    return sorted(of[one.treatment] & of[one.control])


def _differences(one: Hypothesis, plan: ReportPlan, rows: pd.DataFrame) -> Differences | None:
    """Treatment less control of each planned seed, positive where the treatment is better; None if one is missing."""
    found = {(row.variant, row.seed): row for row in rows.itertuples() if math.isfinite(float(row.value))}
    keys = [((one.treatment, seed), (one.control, seed)) for seed in _seeds(one, plan)]
    if not keys or not all(key in found for pair in keys for key in pair):
        return None
    pairs = [(found[treated], found[control]) for treated, control in keys]
    values = np.array([float(treated.value) - float(control.value) for treated, control in pairs])
    items = [np.subtract(treated.items, control.items) for treated, control in pairs]
    differences = Differences(values, item_error(items, float(rows["resolution"].iloc[0])))
    return differences if rows["better"].iloc[0] == "higher" else differences.reversed


def _unregistered(plan: ReportPlan, study: Study, used: set[str], collected: Collected) -> str:
    """Why the study does not count as registered before the scores of these records were made; empty if it does."""
    file, registered = registration_file(plan.grid), read_registration(plan.grid)
    if registered is None:
        return "it was never registered"
    if registered.get("study") != as_json(asdict(study)):
        return "it was changed after it was registered"
    if set(registered["runs"]) != {run.id for run in plan.runs if run.trained}:
        return "its runs are others than those that were registered"
    unsealed, hashed = read_record(unsealed_dir(plan.grid)), sha256_file(file)
    if not unsealed or (file.as_posix(), hashed) not in [(each["path"], each["sha256"]) for each in unsealed["inputs"]]:
        return "no record says that all of its runs were there when its test data were unsealed"
    records = [each for each in itertools.chain(*collected.records.values()) if each["id"] in used]
    asked = [_asked(each) for each in registered.get("evaluation", ())]
    otherwise = [each for each in records if _asked(each["config"]) not in asked]
    if otherwise:
        return f"a score was made with other settings than those that were registered ({otherwise[0]['name']})"
    strays = list(_without(unsealed, plan, records))
    return f"a score was made without it ({strays[0]})" if strays else ""


def _asked(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """What of the settings of a score says how it is made."""
    return settings.get("protocol"), settings.get("settings")


def _without(unsealed: Record, plan: ReportPlan, records: Iterable[Record]) -> Iterator[str]:
    """The names of the records of scores that were made without `unsealed.json` as it is, or of another encoder."""
    path = unsealed_file(plan.grid).as_posix()
    listed = {entry["path"]: entry["sha256"] for entry in unsealed["inputs"]}
    for record in records:
        seals = [entry for entry in record["inputs"] if entry["path"] == path and is_maker(unsealed, entry)]
        trained = [entry for entry in record["inputs"] if entry["path"] in listed]
        if not seals or any(listed[entry["path"]] != entry["sha256"] for entry in trained):
            yield record["name"]
