"""The benchmark compares like with like: every arm gives one and the same hyper-gradient."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import accuracy, bilevel, throughput
from benchmarks.accuracy import agreement, relative_error, slope_error, small, trained
from benchmarks.meter import peak_bytes, timed
from benchmarks.peers import PEERS, load
from benchmarks.problem import Case, Problem, build
from gessl.bilevel.settings import SOLVER_NAMES, solver_named
from tests.support.scheme import rated

NEEDS = {"plain loop": "torch", "Betty": "betty", "TorchOpt": "torchopt"}


@pytest.mark.parametrize("case", [Case(1, 1), Case(3, 2), Case(1, 2, 3)], ids=str)
@pytest.mark.parametrize("label", PEERS)
def test_a_peer_gives_our_hyper_gradient_every_time(label: str, case: Case) -> None:
    pytest.importorskip(NEEDS[label])
    problem = small(case, smooth=True)
    ours = problem.gradient(problem.settings())
    run = load()[0][label](problem)
    for _ in range(2):  # nothing of a step may be left to the next
        assert relative_error(run(), ours) < 1e-9
    assert relative_error(problem.gradient(problem.settings()), ours) == 0


def test_that_hyper_gradient_is_the_slope_of_the_outer_loss() -> None:
    problem = small(Case(2, 2, 2), smooth=True)
    exact, first_order = (problem.gradient(problem.settings(solver)) for solver in ("exact", "first_order"))
    assert slope_error(problem, exact) < 1e-7
    assert slope_error(problem, first_order) > 1e-2


def test_agreement_tells_a_wrong_arm_by_its_error() -> None:
    def wrong(problem: Problem):
        return lambda: problem.gradient(problem.settings("first_order"))

    peers = {"plain loop": load()[0]["plain loop"], "wrong": wrong}
    rows = agreement(Case(1, 1), peers)
    accuracy.check([row for row in rows if row["arm"] != "wrong"])
    with pytest.raises(SystemExit, match="wrong disagrees at K=1, λ=1, M=1, tanh"):
        accuracy.check(rows)


def test_a_broken_peer_is_left_out_with_its_reason() -> None:
    def broken(problem: Problem):
        raise KeyError("params")

    found, reasons = accuracy.usable({"plain loop": load()[0]["plain loop"], "broken": broken})
    assert list(found) == ["plain loop"] and reasons == {"broken": "fails here (KeyError: 'params')"}


def test_a_missing_peer_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "absent", ("no_such_peer", None))
    found, _, skipped = load()
    assert "plain loop" in found
    assert "no_such_peer" in skipped["absent"]


@pytest.mark.parametrize(
    ("solver", "steps"),
    [
        ("unroll", (5, 9, 21)),
        ("replay", (6, 10, 26)),
        ("exact", (5, 9, 26)),
        ("first_order", (3, 7, 11)),
        ("parameter_matching", (2, 6, 10)),
        ("one_sided_difference", (4, 8, 16)),
        ("central_difference", (5, 9, 21)),
        ("truncated", (6, 10, 14)),
        ("implicit_cg", (14, 18, 22)),
    ],
)
def test_bounds_count_the_passes(solver: str, steps: tuple[int, ...]) -> None:
    cases = ((1, 1), (1, 5), (5, 5))
    found = [
        bilevel.bound(rated(inner_steps=inner, target_steps=target, solver=solver_named(solver), proximal=1.0))
        for inner, target in cases
    ]
    assert tuple(found) == steps


def test_the_memory_meter_sees_the_peak_and_only_the_call() -> None:
    before = torch.zeros(1_000_000)

    def run() -> torch.Tensor:
        torch.zeros(500_000) + 1  # 4 MB for a moment
        return torch.zeros(250_000)

    assert peak_bytes(run, "cpu") == pytest.approx(4_000_000, abs=1000)
    assert peak_bytes(lambda: before.sum(), "cpu") < 1000


def test_the_timer_averages_calls_and_hands_back_the_last_result() -> None:
    calls = iter(range(10))
    seconds, last = timed(lambda: next(calls), "cpu", calls=4)
    assert last == 3
    assert seconds >= 0


def test_the_plain_network_is_the_learners() -> None:
    problem = build("small-conv", 8, 4, Case(1, 1), dtype=torch.float64)
    ordinary = bilevel.ordinary_step(problem)
    assert relative_error(ordinary(), problem.gradient(None)) < 1e-12
    before = {name: tensor.clone() for name, tensor in problem.network.named_buffers()}
    ordinary()
    for name, tensor in problem.network.named_buffers():
        assert torch.equal(tensor, before[name])


def test_training_leads_to_other_weights() -> None:
    problem = small(Case(1, 1), smooth=True)
    moved = trained(problem)
    assert relative_error(moved.variables.params, problem.variables.params) > 0.01


@pytest.mark.slow
def test_the_quick_run_reports_every_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("benchmarks.rounds.LEAST", 0.0)
    threads = torch.get_num_threads()
    bilevel.main(["--quick"])
    torch.set_num_threads(threads)
    report = json.loads((tmp_path / "benchmarks/out/bilevel.json").read_text(encoding="utf-8"))
    assert report["max_rel_error_exact"] < 1e-12
    assert report["max_rel_error_exact_slope"] < 1e-7
    for key in ("exact_over_bound", "exact_over_bound_ordinary", "plain_over_ours", "replay_memory_k5_over_k1"):
        assert report[key] > 0
    for key, label in (("betty_over_ours", "Betty"), ("torchopt_over_ours", "TorchOpt")):
        assert (report[key] is None) == (label in report["skipped"])
    measured = {row["solver"] for row in report["solvers"]}
    assert measured == set(SOLVER_NAMES)
    assert set(report["memory_by_solver"]) <= measured
    assert {row["arm"] for row in report["rows"]} >= {"exact", "ordinary", "plain loop"}
    assert report["max_rel_error_exact_timed"] < 1e-9
    assert all(row["error"] < 0.5 for row in report["rows"] if row["arm"] != "ordinary")
    assert {"device", "cpu_threads", "torch", "peers", "skipped"} <= set(report)
    printed = capsys.readouterr().out
    assert "| exact solver, measured / bound |" in printed and "| implicit_cg |" in printed


def test_throughput_searches_for_the_best_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    throughput.main(["--seconds", "0.01"])
    report = json.loads((tmp_path / "benchmarks/out/throughput.json").read_text(encoding="utf-8"))
    assert [row["arm"] for row in report["best"]] == list(throughput.ARMS)
    for row in report["best"]:
        assert row["images_per_second"] == max(
            other["images_per_second"] for other in report["tried"] if other["arm"] == row["arm"]
        )
    assert "| small-conv | 8x8 | SimCLR |" in capsys.readouterr().out
