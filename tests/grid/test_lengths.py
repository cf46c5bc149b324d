"""Runs as long as others: steps from times that are kept, and one line where a time is missing."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
import yaml

from gessl.bilevel.settings import ByCurvature
from gessl.cli import main
from gessl.errors import UserError
from gessl.grid.experiment import Experiment
from gessl.grid.times import Timed, kind_of, read_times, times_file
from gessl.training.inner_rate import measured_at
from gessl.training.settings import Science
from gessl.training.timing import time_steps
from tests.conftest import SMALL

CONFIG = Path("config/config.yaml")


GESSL = {"inner_steps": 1, "target_steps": 1, "inner_lr": 0.05}
AS_LONG = {"train": {"seconds_of": "gessl"}}


def tree(variants: dict, **changes: object) -> dict:
    return {**copy.deepcopy(SMALL), "seeds": [0], "variants": variants, "comparisons": [], **changes}


def sciences(variants: dict, **changes: object) -> dict[str, Science]:
    return {cell.variant: cell.science for cell in Experiment.parse(tree(variants, **changes), "here").runs()}


def timed(seconds: dict[str, float], variants: dict, **changes: object) -> None:
    """Write times by hand: of each variant a step's, and a twentieth of a second for each measurement of curvature."""
    found = [
        Timed(
            f"{science.dataset} {science.method_name} {name}",
            kind_of(science),
            seconds[name],
            0.05 if science.gessl and isinstance(science.gessl.inner_lr, ByCurvature) else 0.0,
        )
        for name, science in sciences(variants, **changes).items()
    ]
    file = times_file("small")
    file.parent.mkdir(exist_ok=True)
    document = {"machine": "by hand", "steps": [dataclasses.asdict(each) for each in found]}
    file.write_text(yaml.safe_dump(document), encoding="utf-8")


PLAIN = {"base": {}, "gessl": {"gessl": GESSL}}


def test_steps_follow_from_seconds_and_the_run_is_that_of_so_many_steps(project: Path) -> None:
    timed({"base": 0.01, "gessl": 0.064}, PLAIN)
    found = sciences({**PLAIN, "as-long": AS_LONG, "same": {"train": {"steps": 77}}})
    assert found["as-long"].train.steps == 77  # 12 · 0.064 / 0.01 = 76.8
    ids = {cell.variant: cell.id for cell in Experiment.parse(tree({"a": {"train": {"steps": 77}}}), "here").runs()}
    both = Experiment.parse(tree({**PLAIN, "as-long": AS_LONG}), "here").runs()
    assert {cell.variant: cell.id for cell in both}["as-long"] == ids["a"]


def test_what_a_branch_and_its_trunk_take_counts(project: Path) -> None:
    timed({"base": 0.01, "gessl": 0.06}, PLAIN)
    start = {"from": {"variant": "base", "at": 0.5}}
    found = sciences(
        {
            **PLAIN,
            "late": {**start, "gessl": GESSL},
            "late-base": {**start, "train": {"seconds_of": "late"}},
            "as-long": {"train": {"seconds_of": "late"}},
            "late-as-long": {**start, "train": {"seconds_of": "gessl"}},
        }
    )
    assert found["late-base"].train.steps == 6 + 6 * 6
    assert found["as-long"].train.steps == 6 + 6 * 6
    assert found["late-as-long"].train.steps == 12 * 6
    assert found["late-base"].first_step == 6


def test_measurements_of_curvature_count(project: Path) -> None:
    variants = {"base": {}, "gessl": {"gessl": {**GESSL, "inner_lr": {"curvature": 1.0}}}}
    timed({"base": 0.01, "gessl": 0.06}, variants)
    found = sciences({**variants, "as-long": AS_LONG})
    measured = len(measured_at(found["gessl"].train))
    assert 10 <= measured <= 11
    assert found["as-long"].train.steps == round((12 * 0.06 + measured * 0.05) / 0.01)


def test_under_axes_it_is_the_arm_of_the_same_values(project: Path) -> None:
    axes = {"train.steps": [10, 20]}
    timed({"base": 0.01, "gessl": 0.05}, PLAIN)
    found = sciences({**PLAIN, "as-long": AS_LONG}, axes=axes)
    assert {found[f"as-long,steps={steps}"].train.steps for steps in (10, 20)} == {50, 100}


def test_a_kind_is_what_decides_the_cost_and_nothing_else(project: Path) -> None:
    def kind(**gessl: object) -> str:
        return kind_of(sciences({"gessl": {"gessl": {**GESSL, **gessl}}})["gessl"])

    assert kind() == kind(inner_lr=0.3) == kind(kl_weight=2.0)
    assert len({kind(), kind(tasks=3), kind(target_steps=2), kind(inner_lr={"curvature": 1.0})}) == 4
    base = sciences({"base": {}, "rate": {"train": {"lr": 0.1}}, "batch": {"train": {"batch": 16}}})
    assert kind_of(base["base"]) == kind_of(base["rate"]) != kind_of(base["batch"])


NEVER = "was never timed, so its length in seconds is not known; run `gessl time here`"
WRONG = [
    ({**PLAIN, "as-long": AS_LONG}, f"variants.as-long.train.seconds_of: digits simclr as-long {NEVER}"),
    (
        {**PLAIN, "as-long": {"train": {"seconds_of": "gesl"}}},
        "variants.as-long.train.seconds_of: unknown variant 'gesl'; did you mean 'gessl'?"
        " (valid: as-long, base, gessl)",
    ),
    (
        {**PLAIN, "as-long": {"train": {"seconds_of": 3}}},
        "variants.as-long.train.seconds_of: unknown variant '3' (valid: as-long, base, gessl)",
    ),
    (
        {**PLAIN, "as-long": {"train": {"seconds_of": "as-long"}}},
        "variants.as-long.train.seconds_of: as-long itself trains for as long as another variant; name that one",
    ),
    (
        {**PLAIN, "as-long": {"train": {"seconds_of": "gessl", "steps": 5}}},
        "variants.as-long.train.steps: its number of steps follows from seconds_of; take one of the two out",
    ),
    (
        {**PLAIN, "as-long": AS_LONG, "late": {"from": {"variant": "as-long", "at": 0.5}}},
        "variants.late.from.variant: as-long has no number of steps of its own (seconds_of); name one that has",
    ),
]


@pytest.mark.parametrize(("variants", "line"), WRONG, ids=[line for _, line in WRONG])
def test_what_has_no_length_is_one_line(project: Path, variants: dict, line: str) -> None:
    with pytest.raises(UserError) as error:
        sciences(variants)
    assert f"here: {line}" in error.value.args
    assert sum("never timed" in each for each in error.value.args) <= 1


def test_so_few_steps_that_they_contradict_other_settings_are_one_line(project: Path) -> None:
    timed({"base": 0.1, "gessl": 0.01}, PLAIN)
    with pytest.raises(UserError) as error:
        sciences({**PLAIN, "as-long": AS_LONG})
    (line,) = error.value.args
    assert line.startswith(
        "here: variants.as-long.train.seconds_of: as long as gessl: warmup: the warm-up takes 2 steps"
    )


def test_no_time_for_a_step_is_one_line(project: Path) -> None:
    variants = {"base": {}, "gessl": {"gessl": GESSL, "train": {"steps": 2}}}
    timed({"base": 0.1, "gessl": 0.1}, variants)
    start = {"from": {"variant": "base", "at": 0.5}}
    with pytest.raises(UserError) as error:
        sciences({**variants, "as-long": {**start, "train": {"seconds_of": "gessl"}}})
    (line,) = error.value.args
    assert (
        "as long as gessl: steps: it takes 0.2 s, and a step of this one would end later (6 steps come before it)"
        in line
    )


def test_times_that_are_wrong_are_one_line(project: Path) -> None:
    timed({"base": 0.01, "gessl": 0.05}, PLAIN)
    file = times_file("small")
    file.write_text(file.read_text(encoding="utf-8").replace("seconds: 0.05", "seconds: -1"), encoding="utf-8")
    with pytest.raises(UserError, match=r"config/times/small.yaml:\d+: steps.1.seconds: must be a number, above 0"):
        sciences({**PLAIN, "as-long": AS_LONG})


def test_they_are_timed_once_and_kept(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def write(variants: dict) -> None:
        CONFIG.write_text(yaml.safe_dump(tree(variants)), encoding="utf-8")

    write({**PLAIN, "as-long": AS_LONG})
    assert main(["check", "--config", str(CONFIG)]) == 2
    assert "run `gessl time config/config.yaml`" in capsys.readouterr().err
    assert main(["time", str(CONFIG)]) == 0
    times = read_times("small")
    assert [each.of for each in times.steps] == ["digits simclr as-long", "digits simclr gessl"]
    base, gessl = (each.seconds for each in times.steps)
    assert 0 < base < gessl and times.machine
    assert main(["check", "--config", str(CONFIG)]) == 0
    assert not Path("results/runs").exists() and not list(Path("work").glob("digits-*"))

    before = times_file("small").read_bytes()
    assert main(["time", str(CONFIG)]) == 0
    assert "so it stays; move it away to measure anew" in capsys.readouterr().err
    assert times_file("small").read_bytes() == before
    write(
        {
            **PLAIN,
            "as-long": AS_LONG,
            "more": {"gessl": {**GESSL, "tasks": 3}},
            "as-more": {"train": {"seconds_of": "more"}},
        }
    )
    assert main(["time", str(CONFIG)]) == 0
    after = read_times("small")
    assert after.steps[:2] == times.steps and [each.of for each in after.steps[2:]] == ["digits simclr more"]


def test_nothing_to_time_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CONFIG.write_text(yaml.safe_dump(tree(PLAIN)), encoding="utf-8")
    assert main(["time", str(CONFIG)]) == 2
    assert "no variant trains for as long as another one (seconds_of)" in capsys.readouterr().err
    CONFIG.write_text(yaml.safe_dump(tree({**PLAIN, "as-long": AS_LONG})), encoding="utf-8")
    assert main(["time", str(CONFIG)]) == 2
    assert "prepare" in capsys.readouterr().err and not times_file("small").exists()


def test_curvature_is_timed_apart(prepared: Path) -> None:
    found = sciences({"base": {}, "gessl": {"gessl": {**GESSL, "inner_lr": {"curvature": 1.0}}}})
    base, gessl = time_steps(list(found.values()), torch.device("cpu"))
    assert base.measurement == 0 < gessl.measurement
    assert gessl.step > base.step > 0
