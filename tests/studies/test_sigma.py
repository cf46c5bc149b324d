"""Rank correlations of σ against ranks by hand, and the table of a grid that was really scored."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from gessl.cli import main
from studies import sigma
from studies.sigma import ADAPTED, FROZEN, Scored, beyond, judged, over_all, over_lengths, over_methods, with_interval
from tests.conftest import SMALL

KEY = ("sigma/onehot", "suite", "sigma_mean")
CONFIG = Path("config/config.yaml")


def run(method: str, steps: int, of_sigma: float, frozen: float, adapted: float = 0.0) -> Scored:
    return Scored(method, steps, {KEY: of_sigma, FROZEN: frozen, ADAPTED: adapted})


def drawn(seed: int = 0, methods: int = 6, lengths: int = 3) -> list[Scored]:
    """Scores of few levels, so that most tie."""
    random = np.random.default_rng(seed)
    return [
        run(f"m{method}", 10 * length, *random.integers(0, 5, 3).astype(float))
        for method in range(methods)
        for length in range(1, lengths + 1)
    ]


def columns(runs: list[Scored]) -> list[np.ndarray]:
    return [np.array([one.scores[key] for one in runs]) for key in (KEY, FROZEN, ADAPTED)]


@pytest.mark.parametrize("seed", range(4))
def test_over_all_is_pearsons_correlation_of_ranks(seed: int) -> None:
    runs = drawn(seed)
    of_sigma, frozen, _ = map(stats.rankdata, columns(runs))
    assert over_all(KEY, FROZEN)(runs) == pytest.approx(-np.corrcoef(of_sigma, frozen)[0, 1])


def test_a_smaller_sigma_with_a_higher_accuracy_is_the_same_order() -> None:
    runs = [run("m", steps, 1 / steps, float(steps)) for steps in (1, 2, 3)]
    assert over_all(KEY, FROZEN)(runs) == pytest.approx(1)
    assert over_lengths(KEY, FROZEN)(runs) == pytest.approx(1)


def test_over_methods_takes_the_longest_training_alone() -> None:
    runs = drawn(1)
    longest = [one for one in runs if one.steps == 30]
    assert over_methods(KEY, FROZEN)(runs) == pytest.approx(over_all(KEY, FROZEN)(longest))


def test_over_lengths_is_the_mean_over_methods_and_one_drawn_twice_counts_twice() -> None:
    runs = drawn(5)
    each = [over_all(KEY, FROZEN)([one for one in runs if one.method == f"m{place}"]) for place in range(6)]
    known = [rho for rho in each if not math.isnan(rho)]
    assert len(known) > 1
    assert over_lengths(KEY, FROZEN)(runs) == pytest.approx(np.mean(known))
    first = next(place for place, rho in enumerate(each) if not math.isnan(rho))
    twice = [*runs, *(one for one in runs if one.method == f"m{first}")]
    assert over_lengths(KEY, FROZEN)(twice) == pytest.approx(np.mean([*known, each[first]]))


@pytest.mark.parametrize("seed", range(4))
def test_beyond_is_the_correlation_of_what_accuracy_leaves_of_the_ranks(seed: int) -> None:
    runs = drawn(seed)
    of_sigma, frozen, adapted = map(stats.rankdata, columns(runs))
    line = np.stack([frozen, np.ones_like(frozen)], axis=1)
    left = [values - line @ np.linalg.lstsq(line, values, rcond=None)[0] for values in (-of_sigma, adapted)]
    assert beyond(KEY)(runs) == pytest.approx(np.corrcoef(*left)[0, 1])


def test_what_has_no_spread_or_no_number_has_no_correlation() -> None:
    flat = [run("m", steps, 1.0, float(steps), float(steps)) for steps in (1, 2, 3)]
    assert math.isnan(over_all(KEY, FROZEN)(flat))
    assert math.isnan(beyond(KEY)([run("m", steps, -float(steps), float(steps), float(steps)) for steps in (1, 2, 3)]))
    lost = [*drawn(2), run("m9", 30, math.nan, 3.0)]
    assert over_all(KEY, FROZEN)(lost) == over_all(KEY, FROZEN)(drawn(2))
    assert math.isnan(over_all(KEY, FROZEN)(drawn(2)[:2]))


def test_intervals_hold_the_value_and_draw_whole_methods() -> None:
    runs = drawn(3, methods=8)
    found = with_interval(over_all(KEY, FROZEN), runs)
    assert found.lo <= found.rho <= found.hi and found.hi - found.lo > 0.1
    pattern = [(10, 1.0, 2.0), (20, 2.0, 3.0), (30, 3.0, 1.0)]
    alike = with_interval(over_all(KEY, FROZEN), [run(name, *scores) for name in "abc" for scores in pattern])
    assert alike.rho == pytest.approx(alike.lo) == pytest.approx(alike.hi), "methods that are the same are one"
    assert math.isnan(with_interval(over_all(KEY, FROZEN), runs[:3]).lo), "of one method nothing is known"


def test_each_sigma_has_a_row() -> None:
    found = judged(drawn(4))
    assert list(found) == ["sigma/onehot suite"]
    assert "5w1s, all" in found["sigma/onehot suite"] and "beyond" in found["sigma/onehot suite"]


def test_the_study_reads_what_was_scored(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [{"protocol": "fewshot/proto-v1", "episodes": 20}, {"protocol": "sigma/onehot", "tasks": 4}]
    CONFIG.write_text(yaml.safe_dump({**SMALL, "seeds": [0], "evaluation": asked}), encoding="utf-8")
    assert main(["tasks", "digits", "0"]) == 0
    (base, gessl) = (cell.id for cell in sigma.grids([CONFIG])[0].runs())
    for verb in ("pretrain", "evaluate"):
        assert main([verb, base]) == 0
    capsys.readouterr()
    assert sigma.main([str(CONFIG)]) == 0
    said = capsys.readouterr()
    assert f"{gessl} is not finished" in said.err and "On digits" in said.out
    written = json.loads(Path("studies/out/sigma/sigma.json").read_text(encoding="utf-8"))
    assert "sigma/onehot-eps0.1-kl-tau0.5-cal suite" in written["targets"]["digits"]
