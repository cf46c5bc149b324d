"""Lengths in epochs: the steps that see the images as often, the run of these steps, one line if they are unknown."""

import copy
import shutil
from pathlib import Path

import pytest
import yaml

from gessl.cli import main
from gessl.data.arrays import positions_of
from gessl.data.order import Order
from gessl.errors import UserError
from gessl.grid.cells import PlannedScience
from gessl.grid.experiment import Experiment
from gessl.grid.times import Timed, kind_of, times_file
from tests.conftest import SMALL

GESSL = {"inner_steps": 1, "target_steps": 1, "tasks": 2, "inner_lr": 0.05}
BATCH = 32


def tree(train: dict, variants: dict | None = None, **changes: object) -> dict:
    """An experiment whose recipe has this length and no other."""
    recipe = {"train": {"batch": BATCH, "warmup": 2, "lr": 0.003, **train}}
    both = {"base": {}, "gessl": {"gessl": GESSL}}
    own = {"recipe": recipe, "variants": variants or both, "seeds": [0], "comparisons": []}
    return {**copy.deepcopy(SMALL), **own, **changes}


def planned(*words: object, **changes: object) -> dict[str, PlannedScience]:
    return {cell.variant: cell for cell in Experiment.parse(tree(*words, **changes), "here").runs()}


def faults(*words: object, **changes: object) -> tuple[str, ...]:
    with pytest.raises(UserError) as error:
        planned(*words, **changes)
    return error.value.args


def seen(drawn: int, batch: int = BATCH) -> float:
    """Epochs that have gone by after a number of mini-batches: a loop over the order that training follows."""
    order, images = Order(positions_of("digits", "train"), 0, batch), 0
    for task in range(drawn):
        images += len(order.positions(task))
    return images / (len(order.train) - len(order.train) % batch)


def test_both_arms_see_the_images_as_often_as_asked(prepared: Path) -> None:
    found = planned({"epochs": 3})
    assert seen(found["base"].science.train.steps) == 3
    steps = found["gessl"].science.train.steps
    assert abs(seen(2 * steps) - 3) <= min(abs(seen(2 * (steps + way)) - 3) for way in (-1, 1))
    assert 2 * steps - 1 <= found["base"].science.train.steps <= 2 * steps + 1


@pytest.mark.parametrize("epochs", [0.1, 0.5, 1, 2.25])
def test_a_part_of_an_epoch_is_rounded_to_the_nearest_step(prepared: Path, epochs: float) -> None:
    steps = planned({"epochs": epochs, "warmup": 0, "batch": 100})["base"].science.train.steps
    near = min(range(1, 100), key=lambda each: abs(seen(each, 100) - epochs))
    assert steps == near


def test_less_than_half_a_step_is_one(prepared: Path) -> None:
    assert planned({"epochs": 0.001, "warmup": 0})["gessl"].science.train.steps == 1


def test_the_run_is_that_of_the_same_number_of_steps(prepared: Path) -> None:
    found = planned({"epochs": 3})
    steps = {name: cell.science.train.steps for name, cell in found.items()}
    same = planned({"steps": 7}, {"base": {"train": {"steps": steps["base"]}},
                                  "gessl": {"gessl": GESSL, "train": {"steps": steps["gessl"]}}})  # fmt: skip
    assert {name: cell.id for name, cell in same.items()} == {name: cell.id for name, cell in found.items()}
    Path("one.yaml").write_text(yaml.safe_dump(tree({"epochs": 3})), encoding="utf-8")
    assert main(["plan", "one.yaml", "config/config.yaml"]) == 2  # both are called small
    assert main(["check", "--config", "one.yaml"]) == 0


def test_what_is_said_last_is_the_length(prepared: Path) -> None:
    """A variant, an axis or an experiment over a recipe may say in epochs what was said in steps, and the reverse."""
    steps = planned({"epochs": 3})["base"].science.train.steps
    assert planned({"steps": 7}, {"base": {"train": {"epochs": 3}}})["base"].science.train.steps == steps
    assert planned({"epochs": 3}, {"base": {"train": {"steps": 7}}})["base"].science.train.steps == 7
    grown = planned({"steps": 7}, axes={"train.epochs": [3, 6]})
    assert [grown[f"base,epochs={epochs}"].science.train.steps for epochs in (3, 6)] == [steps, 2 * steps]
    own = planned({"steps": 7}, methods={"simclr": {"hidden": 16, "dim": 8, "recipe": {"train": {"epochs": 3}}}})
    assert own["base"].science.train.steps == steps
    Path("config/recipes/sevens.yaml").write_text(yaml.safe_dump({"recipe": {"train": {"steps": 7}}}), encoding="utf-8")
    brought = planned({"epochs": 3}, **{"from": "sevens"})
    assert brought["base"].science.train.steps == steps


def test_each_data_set_has_its_own_steps(prepared: Path) -> None:
    """Of one that is not prepared, the line names it alone."""
    entry = Path("config/datasets/digits.yaml").read_text(encoding="utf-8").replace("test: 0.2", "test: 0.5")
    Path("config/datasets/halves.yaml").write_text(entry, encoding="utf-8")
    shutil.copy("data/raw/digits.dvc", "data/raw/halves.dvc")
    shutil.copytree("data/raw/digits", "data/raw/halves")
    pin = Path("data/raw/halves.dvc")
    pin.write_text(pin.read_text(encoding="utf-8").replace("path: digits", "path: halves"), encoding="utf-8")
    asked = {"datasets": ["digits", "halves"], "evaluation": ["knn/5nn-euclid"]}
    (line,) = faults({"epochs": 3}, {"base": {}}, **asked)
    text = "the training images of halves are not counted yet; run `gessl prepare halves` (after `gessl fetch halves`)"
    assert line == f"here: recipe.train.epochs: {text}"
    assert main(["fetch", "halves"]) == main(["prepare", "halves"]) == 0
    cells = Experiment.parse(tree({"epochs": 3}, {"base": {}}, **asked), "here").runs()
    for cell in cells:
        order = Order(positions_of(cell.science.dataset, "train"), 0, BATCH)
        assert cell.science.train.steps == 3 * order.batches
    assert len({cell.science.train.steps for cell in cells}) == 2


def test_a_branch_and_its_trunk_count_together(prepared: Path) -> None:
    start = {"from": {"variant": "base", "at": 0.5}}
    found = planned({"epochs": 4}, {"base": {}, "late": {**start, "gessl": GESSL}, "later": {**start, "train": {
        "epochs": 5}}, "short": {**start, "train": {"steps": 100}}})  # fmt: skip
    base, late = found["base"].science.train.steps, found["late"].science
    assert seen(base) == 4 and late.first_step == base / 2
    assert late.drawn(late.train.steps) == base
    assert seen(found["later"].science.train.steps) == 5
    assert found["short"].science.first_step == base / 2 and found["short"].science.train.steps == 100


@pytest.mark.parametrize("train", [{"epochs": 2}, {"epochs": 0.5}, {"steps": 10}])
def test_a_branch_that_ends_before_it_begins_is_one_line(prepared: Path, train: dict) -> None:
    start = {"from": {"variant": "base", "at": 0.5}}
    half = planned({"epochs": 4})["base"].science.train.steps // 2
    (found,) = faults({"epochs": 4}, {"base": {}, "late": {**start, "train": {"warmup": 0, **train}}})
    ends = planned({"warmup": 0, **train})["base"].science.train.steps
    text = f"base has made {half} steps by then, and late ends at {ends}; give less"
    assert found == f"here: variants.late.from.at: {text}"


def test_runs_as_long_as_those_in_epochs(prepared: Path) -> None:
    variants = {"base": {}, "gessl": {"gessl": GESSL}}
    both = planned({"epochs": 3})
    times = [Timed(name, kind_of(cell.science), 0.01 if name == "base" else 0.05) for name, cell in both.items()]
    times_file("small").parent.mkdir(exist_ok=True)
    steps = [{"of": each.of, "kind": each.kind, "seconds": each.seconds} for each in times]
    times_file("small").write_text(yaml.safe_dump({"machine": "by hand", "steps": steps}), encoding="utf-8")
    found = planned({"epochs": 3}, {**variants, "as-long": {"train": {"seconds_of": "gessl"}}})
    assert found["as-long"].science.train.steps == 5 * found["gessl"].science.train.steps
    (line,) = faults({"epochs": 3}, {**variants, "as-long": {"train": {"seconds_of": "gessl", "epochs": 3}}})
    expected = "variants.as-long.train.epochs: its number of steps follows from seconds_of; take one of the two out"
    assert line == f"here: {expected}"


WRONG = [
    ({"steps": 5, "epochs": 3}, "recipe.train.epochs: steps say how long it trains, too; take one of the two out"),
    ({}, "recipe.train: does not say how long to train; give steps or epochs"),
    ({"epochs": 0}, "recipe.train.epochs: must be a number, above 0 and at most 1000000, got 0"),
    ({"epochs": -1}, "recipe.train.epochs: must be a number, above 0 and at most 1000000, got -1"),
    ({"epochs": True}, "recipe.train.epochs: must be a number, above 0 and at most 1000000, got True"),
    ({"epochs": "3"}, "recipe.train.epochs: must be a number, above 0 and at most 1000000, got '3'"),
    ({"epoch": 3, "steps": 5}, "recipe.train.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
]


@pytest.mark.parametrize(("train", "line"), WRONG, ids=[str(train) for train, _ in WRONG])
def test_what_is_no_length_is_one_line(prepared: Path, train: dict, line: str) -> None:
    (found,) = faults(train)
    assert found.startswith(f"here: {line}")


def test_so_short_that_it_contradicts_other_settings_is_one_line(prepared: Path) -> None:
    (line,) = faults({"epochs": 0.25, "warmup": 20}, {"base": {}})
    steps = planned({"epochs": 0.25})["base"].science.train.steps
    assert line.startswith(
        f"here: recipe.train.epochs: 0.25 epochs are {steps} steps on digits: warmup: the warm-up takes 20 steps, but"
    )


def test_a_batch_that_is_too_large_is_said_alone(prepared: Path) -> None:
    (line,) = faults({"epochs": 3, "batch": 5000})
    assert "recipe.train.batch: on digits: 5000 is more than the " in line


@pytest.mark.parametrize("words", ["check --config", "plan"])
def test_data_that_were_never_prepared_are_one_line(
    words: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump(tree({"epochs": 3})), encoding="utf-8")
    assert main([*words.split(), "mine.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("the training images of digits are not counted yet; run `gessl prepare digits`"
                         " (after `gessl fetch digits`)")  # fmt: skip


def test_a_task_that_is_judged_on_another_mini_batch_draws_two(prepared: Path) -> None:
    gessl = {**GESSL, "judged_on": "other"}
    found = planned({"epochs": 4}, {"same": {"gessl": GESSL}, "other": {"gessl": gessl}})
    same, other = (found[name].science for name in ("same", "other"))
    assert abs(2 * other.train.steps - same.train.steps) <= 1
    assert other.drawn(other.train.steps) == 4 * other.train.steps
    assert abs(seen(other.drawn(other.train.steps)) - 4) <= abs(seen(other.drawn(other.train.steps + 1)) - 4)
