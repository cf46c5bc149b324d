"""The cheapest inner loop: cosines against gradients computed apart, and prices that are shares."""

import json
from pathlib import Path

import pytest
import torch

from gessl.bilevel.settings import GesslSettings
from gessl.cli import main
from gessl.grid.batch import ExperimentBatch
from gessl.layout import run_dir
from gessl.training import tuning
from gessl.training.tuning import AGREES, Tried, cheapest, format_tried, tune
from tests.training.test_pretrain import CONFIG, run_ids

PROTOTYPES = {"deepcluster_v2": {"prototypes": 20}}


def trained(method: str = "simclr", **gessl: object) -> str:
    ids = run_ids(
        seeds=[0],
        methods={method: {"hidden": 16, "dim": 8, **PROTOTYPES.get(method, {})}},
        recipe={"train": {"steps": 4, "batch": 32, "warmup": 2}},
        variants={"base": {}, "gessl": {"gessl": {"tasks": 1, "inner_lr": 0.05, **gessl}}},
        comparisons=[],
    )
    assert main(["pretrain", ids["gessl"]]) == 0
    return ids["gessl"]


def test_its_own_settings_agree_and_the_base_alone_does_where_it_is_all_there_is(prepared: Path) -> None:
    run = trained(target_steps=4, kl_weight=0.0)
    found = {one.name: one for one in tune(run)}
    assert {"as it is", "target_steps: 2", "target_steps: 1", "solver: first_order", "base alone"} <= found.keys()
    assert all(one.cosine == pytest.approx(1, abs=1e-5) for one in found.values())
    assert found["as it is"].price == 1.0
    assert found["base alone"].price < found["solver: first_order"].price < 1
    assert cheapest(list(found.values())).name == "base alone"


def test_cosines_are_those_of_the_gradients_on_images_that_were_not_trained_on(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The divergence alone, at a large rate: first order points elsewhere, as a step by hand shows."""
    run = trained(target_steps=2, ssl_weight=0.0, inner_lr=1.0)
    seen, outer = [], tuning.outer_gradient

    def watched(learner, variables, tasks, settings):  # type: ignore[no-untyped-def]
        result = outer(learner, variables, tasks, settings)
        seen.append((settings, tasks[0], result.gradient))
        return result

    monkeypatch.setattr(tuning, "outer_gradient", watched)
    found = {one.name: one for one in tune(run)}
    flat = {
        name: [
            torch.cat([tensor.flatten().double() for tensor in gradient.values()])
            for settings, _, gradient in seen[: tuning.BATCHES * (1 + len(found))]
            if settings is not None and settings.solver.name == name and settings.target_steps == 2
        ]
        for name in ("exact", "first_order")
    }
    exact, first = (flat[name][: tuning.BATCHES] for name in ("exact", "first_order"))
    by_hand = min(float(torch.nn.functional.cosine_similarity(a, b, 0)) for a, b in zip(exact, first, strict=True))
    assert found["solver: first_order"].cosine == pytest.approx(by_hand, abs=1e-5)
    assert by_hand < AGREES
    assert found["as it is"].cosine == pytest.approx(1, abs=1e-6)
    assert all(task[0].views.shape[1] == 32 for _, task, _ in seen)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "gessl"),
    [
        ("deepcluster_v2", {}),
        ("simclr", {"inner_lr": {"curvature": 1.0}}),
        ("simclr", {"learn_inner_lr": True}),
        ("simclr", {"inner_steps": 2, "solver": "first_order"}),
        ("simclr", {"solver": "parameter_matching"}),
        ("simclr", {"support_query": {}, "target_steps": 0, "kl_weight": 0, "ssl_at": "adapted"}),
    ],
    ids=["deepcluster", "curvature", "learned", "first-order", "matching", "support-query"],
)
def test_any_scheme_can_be_tuned(prepared: Path, method: str, gessl: dict) -> None:
    found = tune(trained(method, **gessl))
    assert len({one.name for one in found}) == len(found) >= 2
    assert [one.price for one in found] == sorted(one.price for one in found)
    own = next(one for one in found if one.name == "as it is")
    if gessl.get("solver") != "first_order":
        assert own.cosine == pytest.approx(1, abs=1e-5)


def test_without_one_that_agrees_the_nearest_is_named() -> None:
    found = [Tried("a", 0.1, 0.2), Tried("b", 0.9, 0.5), Tried("as it is", 0.98, 1.0)]
    assert cheapest(found).name == "as it is"
    assert cheapest([*found, Tried("c", 0.995, 0.7), Tried("d", 1.0, 0.8)]).name == "c"
    assert "a\n" in format_tried(found)
    agreeing = format_tried([Tried("c", 0.995, 0.7), Tried("as it is", 1.0, 1.0)])
    assert "the cheapest with a cosine of 0.99 or more: c" in agreeing


def test_the_verb_prints_what_it_tried(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained()
    capsys.readouterr()
    assert main(["tune-inner", run, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cheapest"] in {one["name"] for one in found["tried"]}


def test_a_run_without_an_inner_loop_and_none_at_all_are_one_line(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained()
    (base,) = (run for run, cell in ExperimentBatch.load([CONFIG]).runs.items() if cell.variant == "base")
    assert main(["tune-inner", base]) == 2
    assert f"{run_dir(base)}: no finished run; train it first" in capsys.readouterr().err
    assert main(["pretrain", base]) == 0
    capsys.readouterr()
    assert main(["tune-inner", base]) == 2
    assert "was trained by the base method alone, so it has no inner loop" in capsys.readouterr().err


def test_defaults_have_what_is_tried() -> None:
    names = [name for name, _ in tuning._cheaper(GesslSettings(target_steps=5))]
    assert names == [
        "target_steps: 2",
        "target_steps: 1",
        "solver: first_order",
        "solver: first_order, target_steps: 1",
        "solver: one_sided_difference",
        "solver: one_sided_difference, target_steps: 1",
    ]
