"""The report of a study: differences against a loop over score files, and when it counts as registered."""

import csv
import dataclasses
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tree import Tree

from gessl.files import as_json
from gessl.layout import report_dir, run_dir, scores_dir
from gessl.records.record import read_record
from gessl.records.step import Step
from gessl.registration import seal
from gessl.registration.study import Hypothesis, Measure, Pilot, Study
from gessl.report.collect import collect
from gessl.report.hypotheses import study_report
from gessl.report.plan import ReportPlan
from gessl.report.step import report

pytestmark = pytest.mark.usefixtures("no_figures")
SIGMA = Measure("sigma/onehot-eps0.1-kl-tau0.5", "digits", "suite", "sigma_mean")
LINEAR = Measure("linear/wmse-v1", "digits")


def hypothesis(name: str, measure: Measure = LINEAR, **size: float) -> Hypothesis:
    pilot = Pilot(0.5, "three seeds")
    return Hypothesis(name, f"{name}: it holds.", "gessl", "base", measure, pilot, "simclr", "digits", **size)


STUDY = Study(
    "Does it hold?",
    (
        hypothesis("better", better_by=1.0),
        hypothesis("smaller σ", SIGMA, better_by=0.01),
        hypothesis("as good", Measure("fewshot/proto-v1", "digits", "5w1s"), equal_within=1.0),
    ),
)


def tree(missing: tuple[str, str, int] | None = None) -> Tree:
    return Tree(methods=("simclr",), variants=("base", "gessl"), missing=missing, failed=None)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up tree, with no registration."""
    root, before = tmp_path_factory.mktemp("written"), Path.cwd()
    os.chdir(root)
    try:
        tree().write()
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def plan(written: Path, project: Path) -> ReportPlan:
    """Of a copy of the tree, which is the working directory."""
    shutil.copytree(written, project, dirs_exist_ok=True)
    return dataclasses.replace(tree().plan(), study=STUDY)


def register(plan: ReportPlan) -> None:
    """The study, and then its scores again."""
    content = {"study": as_json(dataclasses.asdict(plan.study)), "runs": ids(plan), "evaluation": asked(plan)}
    seal.write_registration(plan.grid, content, [])
    seal.unseal(plan.grid)
    score_all_again(plan)


def score_all_again(plan: ReportPlan) -> None:
    for run in plan.runs:
        for folder in sorted(scores_dir(run.id, "digits").glob("*__*")):
            score_again(folder, seal.unsealed_file(plan.grid))


def ids(plan: ReportPlan) -> list[str]:
    return [run.id for run in plan.runs]


def asked(plan: ReportPlan) -> list[dict]:
    """How the runs are scored, as their records say."""
    records = [read_record(folder) for folder in sorted(scores_dir(ids(plan)[0], "digits").glob("*__*"))]
    return [{key: record["config"].get(key) for key in ("protocol", "settings")} for record in records if record]


def score_again(folder: Path, *more: Path) -> None:
    """The same scores, with these inputs of a study."""
    record = read_record(folder)
    assert record is not None
    kept = {Path(each["path"]).name: Path(each["path"]).read_bytes() for each in record["outputs"]}
    inputs = [Path(each["path"]) for each in record["inputs"] if "studies" not in each["path"]] + list(more)
    with Step("evaluate", record["name"], folder, inputs=inputs, config=record["config"], seed=record["seed"]) as step:
        for name, content in kept.items():
            step.path(name).write_bytes(content)


@pytest.fixture(autouse=True)
def encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up runs leave none, so that another of their files stands for it."""
    monkeypatch.setattr(seal, "ENCODER", "views.npy")


def value(plan: ReportPlan, one: Hypothesis, variant: str, seed: int) -> float:
    (run,) = (run.id for run in plan.runs if (run.method, run.variant, run.seed) == (one.method, variant, seed))
    for path in scores_dir(run, one.measure.target).glob("*/scores.csv"):
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if [row[key] for key in ("protocol", "task", "metric")] == [
                    one.measure.protocol, one.measure.task, one.measure.metric,
                ]:  # fmt: skip
                    return float(row["value"])
    raise AssertionError(one)


def test_differences_are_those_of_the_score_files(plan: ReportPlan) -> None:
    found = study_report(plan, collect(plan))
    assert found is not None
    for one in found.tested:
        sign = -1 if one.hypothesis.measure == SIGMA else 1
        pairs = [[value(plan, one.hypothesis, name, seed) for name in ("gessl", "base")] for seed in (0, 1, 2)]
        differences = [sign * (treated - control) for treated, control in pairs]
        assert one.decision.mean == pytest.approx(np.mean(differences)), "positive is better"
        assert (one.decision.n, one.planned, len(one.scores)) == (3, 3, 6)
    assert [one.unit for one in found.tested] == ["%", "nats", "%"]


def test_a_registered_study_says_so(plan: ReportPlan) -> None:
    register(plan)
    found = study_report(plan, collect(plan))
    assert found is not None and found.unregistered == ""
    report(plan)
    page = (report_dir(plan.grid) / "sigma-report.html").read_text(encoding="utf-8")
    section = re.search(r'<section id="hypotheses">.*?</section>', page, re.DOTALL)
    assert section is not None
    for words in ("Does it hold?", "registered before any of its scores was made", "smaller σ", "<b>"):
        assert words in section[0]
    record = read_record(report_dir(plan.grid))
    assert record is not None
    assert seal.registration_file(plan.grid).as_posix() in [each["path"] for each in record["inputs"]]


def test_without_a_study_the_page_has_no_such_part(plan: ReportPlan) -> None:
    report(dataclasses.replace(plan, study=None))
    assert "#hypotheses" not in (report_dir(plan.grid) / "sigma-report.html").read_text(encoding="utf-8")


def not_registered(plan: ReportPlan) -> str:
    found = study_report(plan, collect(plan))
    assert found is not None
    if found.unregistered:
        assert found.standing.startswith("⚠ This is a finding and not a test")
    return found.unregistered


def test_why_a_study_is_no_registered_one(plan: ReportPlan) -> None:
    assert not_registered(plan) == "it was never registered"
    other = {"study": as_json(dataclasses.asdict(dataclasses.replace(STUDY, alpha=0.1))), "runs": ids(plan)}
    other["evaluation"] = asked(plan)
    seal.write_registration(plan.grid, other, [])
    assert not_registered(plan) == "it was changed after it was registered"
    own = {**other, "study": as_json(dataclasses.asdict(STUDY))}
    seal.write_registration(plan.grid, {**own, "runs": ids(plan)[1:]}, [])
    assert not_registered(plan) == "its runs are others than those that were registered"
    seal.write_registration(plan.grid, own, [])
    assert "when its test data were unsealed" in not_registered(plan)
    seal.unseal(plan.grid)
    assert "a score was made without it" in not_registered(plan)
    score_all_again(plan)
    assert not_registered(plan) == ""
    seal.write_registration(plan.grid, {**own, "more": 1}, [])
    assert "when its test data were unsealed" in not_registered(plan), "another registration than was unsealed"


def test_one_score_that_is_not_of_the_chain_is_enough(plan: ReportPlan) -> None:
    register(plan)
    run = next(run for run in plan.runs if run.variant == "gessl")
    score_again(scores_dir(run.id, "digits") / "linear__wmse_v1")
    assert not_registered(plan) == f"a score was made without it ({run.id}/digits/linear__wmse_v1)"


def test_scores_by_other_settings_than_were_registered_are_no_test(plan: ReportPlan) -> None:
    """`gessl evaluate --config` with another file gives such scores, the unsealed list among their inputs."""
    register(plan)
    registered = [{**each, "settings": {"odd": 1}} for each in asked(plan)]
    content = {"study": as_json(dataclasses.asdict(plan.study)), "runs": ids(plan), "evaluation": registered}
    seal.write_registration(plan.grid, content, [])
    seal.unseal(plan.grid)
    score_all_again(plan)
    assert not_registered(plan).startswith("a score was made with other settings than those that were registered")


def test_scores_of_another_encoder_than_was_unsealed_are_no_test(plan: ReportPlan) -> None:
    """A run that is trained again, and scored without being unsealed again."""
    register(plan)
    run = plan.runs[0]
    file = run_dir(run.id) / "views.npy"
    before = read_record(run_dir(run.id))
    assert before is not None
    kept = {Path(each["path"]).name: Path(each["path"]).read_bytes() for each in before["outputs"]}
    kept[file.name] = kept[file.name][:-1] + bytes([kept[file.name][-1] ^ 1])
    with Step("pretrain", run.id, run_dir(run.id), inputs=[], config=before["config"], seed=before["seed"]) as step:
        for name, content in kept.items():
            step.path(name).write_bytes(content)
    score_again(scores_dir(run.id, "digits") / "linear__wmse_v1", seal.unsealed_file(plan.grid), file)
    assert not_registered(plan) == f"a score was made without it ({run.id}/digits/linear__wmse_v1)"


def test_a_pair_that_is_missing_leaves_a_hypothesis_undecided(plan: ReportPlan) -> None:
    run = next(run for run in plan.runs if (run.variant, run.seed) == ("gessl", 1))
    shutil.rmtree(scores_dir(run.id, "digits"))
    found = study_report(plan, collect(plan))
    assert found is not None
    assert {one.decision.verdict for one in found.tested} == {"undecided"}
    assert found.tested[0].sentence == "gessl and base do not have both scores of all 3 seeds"


def test_a_measure_that_nobody_scored_is_undecided(plan: ReportPlan) -> None:
    odd = Study("Is it?", (hypothesis("odd", Measure("linear/wmse-v1", "digits", "none"), better_by=1.0),))
    plan = dataclasses.replace(plan, study=odd)
    found = study_report(plan, collect(plan))
    assert found is not None
    assert found.tested[0].decision.verdict == "undecided" and found.tested[0].scores == ()


def test_hostile_words_stay_text(plan: ReportPlan) -> None:
    evil = "<script>alert(1)</script>"
    one = dataclasses.replace(hypothesis("better", better_by=1.0), name=evil, says=evil)
    report(dataclasses.replace(plan, study=Study(evil, (one,))))
    assert evil not in (report_dir(plan.grid) / "sigma-report.html").read_text(encoding="utf-8")


def test_the_error_is_no_less_than_the_test_items_allow(plan: ReportPlan) -> None:
    collected = collect(plan)
    found = study_report(plan, collected)
    assert found is not None
    one, rows = found.tested[0], collected.scores
    rows = rows[(rows["protocol"] == "linear/wmse-v1") & (rows["metric"] == "accuracy")]
    of = {(row.variant, row.seed): row for row in rows.itertuples()}
    values = [of["gessl", seed].value - of["base", seed].value for seed in (0, 1, 2)]
    items = np.mean([of["gessl", seed].items - of["base", seed].items for seed in (0, 1, 2)], axis=0)
    error = max(
        np.std(values, ddof=1) / 3**0.5, (items.var(ddof=1) / len(items) + rows["resolution"].iloc[0] ** 2) ** 0.5
    )
    assert one.decision.hi - one.decision.mean == pytest.approx(stats.t.ppf(0.975, 2) * error)
