"""The sampler as a key of a recipe: what runs are called under it, and what is refused before anything runs."""

import copy
import dataclasses
from pathlib import Path

import pytest

from gessl.errors import UserError
from gessl.grid.experiment import Experiment
from gessl.grid.times import kind_of
from gessl.identity import ADDED, science_hash
from gessl.training.settings import Science
from tests.conftest import SMALL


def cells(variants: dict, **changes: object) -> dict[str, tuple[str, Science]]:
    """The id and the science of each variant's seed-0 run."""
    tree = {**copy.deepcopy(SMALL), "seeds": [0], "variants": variants, "comparisons": [], **changes}
    return {cell.variant: (cell.id, cell.science) for cell in Experiment.parse(tree, "here").runs()}


def refused(**changes: object) -> str:
    with pytest.raises(UserError) as error:
        cells({"base": {}}, **changes)
    (line,) = error.value.args
    return line


def test_the_default_has_the_id_of_earlier_versions_and_the_times_too(unprepared: Path) -> None:
    found = cells({"base": {}, "random": {"sampler": "random"}, "classes": {"sampler": "by_class"}})
    assert found["base"][0] == found["random"][0] != found["classes"][0]
    settings = dataclasses.asdict(found["base"][1])
    earlier = {key: value for key, value in settings.items() if key not in ADDED}
    assert len(earlier) == len(settings) - 1
    assert science_hash(earlier) == science_hash(settings)
    assert kind_of(found["base"][1]) == kind_of(found["classes"][1]), "a step of either costs the same"


def test_each_way_of_drawing_is_another_run(unprepared: Path) -> None:
    axis = ["random", "by_class", {"name": "by_class", "classes": 2}, {"name": "by_class", "classes": 3}]
    found = cells({"base": {}}, axes={"sampler": axis})
    assert list(found) == [
        "base,sampler=random",
        "base,sampler=by_class",
        "base,sampler=by_class,classes=2",
        "base,sampler=by_class,classes=3",
    ]
    assert len({run for run, _ in found.values()}) == 4


def test_a_branch_may_draw_otherwise_than_its_trunk(unprepared: Path) -> None:
    late = {"from": {"variant": "base", "at": 0.5}, "sampler": "by_class"}
    found = cells({"base": {}, "late": late})
    assert found["late"][1].sampler.name == "by_class"
    assert found["late"][1].start is not None


@pytest.mark.parametrize(
    ("sampler", "line"),
    [
        ("by_clas", "recipe.sampler: unknown sampler 'by_clas'; did you mean 'by_class'?"),
        ({"name": "random", "classes": 2}, "recipe.sampler.classes: unknown key 'classes'"),
        ({"name": "by_class", "classes": 0}, "recipe.sampler.classes: must be a whole number, at least 1 and at most"),
        ("by_group", "recipe.sampler: on digits: by_group takes groups, and no training image has one; take sampler "),
    ],
)
def test_what_cannot_be_drawn_by_is_one_line(sampler: object, line: str, unprepared: Path) -> None:
    found = refused(recipe={**SMALL["recipe"], "sampler": sampler})
    assert found.startswith(f"here: {line}"), found


def test_once_the_data_are_prepared_domains_are_counted(prepared: Path) -> None:
    """Digits have some 120 training images of each class, and no groups."""
    for sampler, batch, line in (
        (
            "by_class",
            128,
            "recipe.sampler: on digits: by_class takes 2 domains or more with the 128 training images of",
        ),
        (
            "by_group",
            32,
            "recipe.sampler: on digits: by_group takes groups, and no training image has one; take sampler random",
        ),
        ({"name": "by_class", "classes": 10}, 32, "recipe.sampler: on digits: by_class finds a single domain"),
    ):
        recipe = {"train": {**SMALL["recipe"]["train"], "batch": batch}, "sampler": sampler}
        assert refused(recipe=recipe).startswith(f"here: {line}")
    recipe = {"train": {**SMALL["recipe"]["train"], "batch": 128}, "sampler": {"name": "by_class", "classes": 2}}
    assert cells({"base": {}}, recipe=recipe)
