"""The `table` of an experiment: what could never be filled is refused, all of it at once."""

import dataclasses
from typing import Any

import pytest

from gessl.errors import UserError
from gessl.grid import experiment as module
from gessl.grid.experiment import Experiment
from gessl.report.plan import LayoutColumn
from gessl.report.reference import Reference
from tests.conftest import SMALL


def experiment(table: Any) -> Experiment:
    return Experiment.parse({**SMALL, "table": table}, "mine.yaml")


def test_columns_and_rows_reach_the_report() -> None:
    sigma = {"protocol": "sigma/onehot-eps0.1-kl-tau0.5", "task": "suite", "metric": "sigma_mean", "label": "σ"}
    plan = experiment(
        {"columns": [{"protocol": "linear/wmse-v1"}, sigma], "rows": [{"variant": "gessl"}]}
    ).report_plan()
    assert plan.layout is not None
    assert plan.layout.over(plan.datasets) == (
        LayoutColumn("linear/wmse-v1", "digits"),
        LayoutColumn("sigma/onehot-eps0.1-kl-tau0.5", "digits", "suite", "sigma_mean", "σ"),
    )
    assert [row.variant for row in plan.layout.rows] == ["gessl"]


def test_published_numbers_of_other_methods_come_with_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    people = Reference("Somebody", "nowhere", "memory", "linear/wmse-v1", "digits", "people", "eyes", 98.0)
    elsewhere = dataclasses.replace(people, dataset="cifar10")
    monkeypatch.setattr(module, "load_references", lambda: (people, elsewhere))
    assert experiment({"columns": [{"protocol": "knn/5nn-euclid"}]}).report_plan().references == ()
    assert experiment({"columns": [{"protocol": "linear/wmse-v1"}]}).report_plan().references == (people,)


def test_the_table_makes_no_other_run() -> None:
    plain = Experiment.parse(SMALL, "mine.yaml")
    assert [cell.id for cell in experiment({"columns": [{"protocol": "knn/5nn-euclid"}]}).runs()] == [
        cell.id for cell in plain.runs()
    ]


def test_what_is_wrong_is_named_at_once() -> None:
    table = {
        "rows": [{"variant": "bas"}],
        "columns": [
            {"protocol": "linear/wmse-v2"},
            {"protocol": "linear/wmse-v1", "target": "cifar10"},
            {"protocol": "sigma/onehot"},
        ],
    }
    with pytest.raises(UserError) as caught:
        experiment(table)
    lines = "\n".join(caught.value.args)
    assert "table.rows.0.variant: unknown variant 'bas'; did you mean 'base'?" in lines
    assert "table.columns.0.protocol: unknown score under `evaluation` 'linear/wmse-v2'" in lines
    assert "table.columns.1.target: unknown data set that runs are scored on 'cifar10'" in lines
    assert "table.columns.2.protocol: unknown score under `evaluation` 'sigma/onehot'" in lines


def test_a_data_set_that_a_protocol_is_not_asked_for() -> None:
    tree = {
        **SMALL,
        "evaluation": ["linear/wmse-v1", {"protocol": "knn/5nn-euclid", "on": ["glyphs-small"]}],
        "table": {"columns": [{"protocol": "knn/5nn-euclid"}]},
    }
    with pytest.raises(UserError) as caught:
        Experiment.parse(tree, "mine.yaml")
    assert "table.columns.0: runs are not scored on digits by knn/5nn-euclid; add it to `evaluation`" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"columns": []}, "table.columns: must not be empty"),
        ({}, "table.columns: is missing"),
        ({"columns": [{"protocol": "linear/wmse-v1"}] * 2}, "table.columns: names one of them twice"),
        (
            {"columns": [{"protocol": "linear/wmse-v1"}], "rows": [{"variant": "base"}, {"variant": "base"}]},
            "table.rows: names a variant twice",
        ),
        ("linear", "table: must be"),
    ],
)
def test_a_table_that_is_none(table: Any, text: str) -> None:
    with pytest.raises(UserError) as caught:
        experiment(table)
    assert text in str(caught.value)


def test_a_table_of_a_recipe_serves_an_experiment_that_scores_less() -> None:
    columns = [
        {"protocol": "linear/wmse-v1"},
        {"protocol": "knn/5nn-euclid"},
        {"protocol": "fewshot/proto-v1", "task": "5w1s"},
    ]
    fewer = Experiment.parse({**SMALL, "evaluation": ["knn/5nn-euclid"], "table": {"columns": columns}}, "mine.yaml")
    layout = fewer.report_plan().layout
    assert layout is not None and [column.protocol for column in layout.columns] == ["knn/5nn-euclid"]
    other = Experiment.parse({**SMALL, "evaluation": ["scarce/linear-v1"], "table": {"columns": columns}}, "mine.yaml")
    assert other.report_plan().layout is None


def test_a_column_of_no_family_is_a_slip() -> None:
    with pytest.raises(UserError, match="unknown score under `evaluation` 'lineal/wmse-v1'"):
        experiment({"columns": [{"protocol": "lineal/wmse-v1"}]})
