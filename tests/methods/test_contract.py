"""What every base method owes, found by name: a new file in gessl/methods is tested without an edit here."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
import yaml

import gessl.methods
from gessl.bilevel.field import Field
from gessl.bilevel.outer import task_hypergradient
from gessl.errors import UserError
from gessl.grid.experiment import Experiment
from gessl.layout import METHODS as YAMLS
from gessl.methods import method_class, method_names
from gessl.methods.base import Clock
from gessl.training.step import outer_gradient
from tests.bilevel.smooth import METHODS, OuterLoss, directions, dot, learner, narrow, norm, task
from tests.bilevel.test_outer import SETTINGS
from tests.conftest import ROOT, SMALL
from tests.support.scheme import rated


@pytest.mark.parametrize("name", METHODS)
def test_every_hyper_parameter_has_a_value_in_the_yaml(name: str) -> None:
    values = yaml.safe_load((ROOT / YAMLS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert values.keys() == {field.name for field in dataclasses.fields(method_class(name))}


@pytest.mark.parametrize("name", METHODS)
def test_every_hyper_parameter_reaches_the_first_steps(name: str) -> None:
    method = narrow(name)
    before = two_steps(method)
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value * 0.9
        after = two_steps(dataclasses.replace(method, **{field.name: other}))
        changed = before.keys() != after.keys() or any(
            before[key].shape != after[key].shape or not torch.equal(before[key], after[key]) for key in before
        )
        assert changed, f"{field.name} is never read"


def two_steps(method) -> dict:
    """Parameters and state after two plain descents of the method's loss."""
    bound, variables = learner(method)
    for step in range(2):
        outer = outer_gradient(bound, variables, [task(bound)], None)
        params = {key: tensor - 0.1 * outer.gradient[key] for key, tensor in variables.params.items()}
        state = bound.commit(variables.state, params, outer.seen, Clock(step + 1, 4, 2))
        variables = variables._replace(params=params, state=state)
    return {**variables.params, **variables.state}


@pytest.mark.parametrize("name", METHODS)
def test_the_page_of_its_family_tells_of_it(name: str) -> None:
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs/methods").glob("*.md")}
    index = pages.pop("README")
    assert f"`{name}`" in index
    assert any(f"`{name}`" in text for text in pages.values())


@pytest.mark.parametrize("name", METHODS)
def test_its_state_learns_from_every_task_as_seen_at_the_start(name: str) -> None:
    bound, variables = learner(name)
    tasks = [task(bound), task(bound, number=1)]
    settings = rated(inner_steps=2, target_steps=2, tasks=2, inner_lr=0.02)
    seen = outer_gradient(bound, variables, tasks, settings).seen
    alone = [outer_gradient(bound, variables, [batches], None).seen[0] for batches in tasks]
    assert len(seen) == 2
    for found, expected in zip(seen, alone, strict=True):
        for group in ("outputs", "targets"):
            tensors, wanted = getattr(found, group), getattr(expected, group)
            assert tensors.keys() == wanted.keys()
            assert all(torch.allclose(tensors[key], wanted[key], rtol=1e-9, atol=1e-12) for key in wanted)
            assert not any(tensor.requires_grad for tensor in tensors.values())


@pytest.mark.parametrize("name", METHODS)
def test_targets_are_where_the_method_says(name: str) -> None:
    bound, (params, buffers, state) = learner(name)
    batch = task(bound)[0]
    leaves = {key: tensor.clone().requires_grad_() for key, tensor in params.items()}
    moved = {key: tensor + 0.5 * torch.randn(tensor.shape, dtype=tensor.dtype) for key, tensor in params.items()}
    here, there = (
        bound.targets(bound.encode(place, buffers, batch)[0], buffers, state, batch) for place in (leaves, moved)
    )
    same = all(torch.equal(here[key], there[key]) for key in here)
    match bound.method.source:
        case "none":
            assert not here
        case "state":
            assert same
            assert not any(tensor.requires_grad for tensor in here.values())
            alone = bound.targets({}, buffers, state, batch)
            assert alone.keys() == here.keys()
            assert all(torch.equal(alone[key], here[key]) for key in here)
        case "outputs":
            assert not same


NEW_METHOD = '''
"""Alignment with a spread term."""

from dataclasses import dataclass

from torch import nn

from gessl.methods.base import Method
from gessl.nets.heads import mlp


@dataclass(frozen=True)
class Spread(Method):
    """Views agree, features keep their variance."""

    dim: int = 32
    weight: float = 0.5

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": mlp(features, self.dim, self.dim)}

    def loss(self, outputs, targets):
        z = outputs["z"]
        return (z[0] - z[1]).square().mean() - self.weight * (z.var(1) + 1e-4).sqrt().mean()
'''


def test_a_new_method_is_one_file_and_one_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the grid, and its exact hyper-gradient is right, with no other edit."""
    (tmp_path / "spread.py").write_text(NEW_METHOD, encoding="utf-8")
    monkeypatch.setattr(gessl.methods, "__path__", [*gessl.methods.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "gessl.methods.spread", raising=False)
    assert "spread" in method_names()
    yaml_path = tmp_path / "methods/spread.yaml"
    yaml_path.parent.mkdir()
    yaml_path.write_text("dim: 32\nweight: 0.5\n", encoding="utf-8")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("gessl.grid.values.METHODS", yaml_path.parent)
    experiment = Experiment.parse({**SMALL, "methods": {"spread": {"weight": 0.7}}}, "here")
    assert [cell.science.method.weight for cell in experiment.runs()] == [0.7] * 4
    assert any(cell.id.startswith("digits-spread+gessl-s0-") for cell in experiment.runs())

    bound, variables = learner("spread")
    for choice in ("K1", "K3-adapted", "K2-fresh-reverse"):
        settings = SETTINGS[choice]
        views = task(bound, settings.view_sets)
        result = task_hypergradient(Field(bound, *variables[1:], views), variables.params, settings)
        loss = OuterLoss(bound, variables, views, settings)
        for direction in directions(variables.params, 1):
            slope = loss.slope(variables.params, direction)
            assert dot(result.hypergradient, direction) == pytest.approx(slope, abs=1e-8 * norm(result.hypergradient))
    settings = rated(target_steps=0)
    logs = task_hypergradient(Field(bound, *variables[1:], task(bound)), variables.params, settings).logs
    assert float(logs["divergence"]) == 0.0


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'simclr'"):
        method_class("simclrr")
