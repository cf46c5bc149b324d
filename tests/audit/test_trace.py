import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gessl.audit.trace import lineage_tree
from gessl.audit.tree import format_tree
from gessl.cli import main
from gessl.errors import UserError
from gessl.files import sha256_file, sha256_json
from gessl.layout import data_dir, raw_dir, report_dir, run_dir
from gessl.records.record import read_record
from gessl.records.step import Step
from gessl.report.plan import Comparison, PlannedRun, ReportPlan
from gessl.report.recompute import recompute
from tests.support.repositories import forge
from tests.support.toy_project import (
    CELL,
    RUN,
    SCORE,
    SCORES_CSV,
    make_again,
    make_report,
    make_run,
    scored,
    train_and_score,
)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node["children"]:
        yield from _nodes(child)


def trace(identifier: str) -> str:
    return format_tree(lineage_tree(identifier))


def _titles(identifier: str) -> list[str]:
    return [node["title"] for node in _nodes(lineage_tree(identifier)) if not node.get("repeated")]


def test_cell_leads_to_the_published_source(project: Path) -> None:
    titles = _titles(CELL)
    assert titles[:3] == [f"cell {CELL} = 91.25", "accuracy = 91.25 %", f"evaluate {RUN}/toy/probes__v1"]
    assert {
        f"pretrain {RUN}",
        "tasks toy-s0/fewshot__proto_v1",
        "prepare toy",
        "fetch toy",
        "read data/raw/toy.dvc",
    } <= set(titles)
    text = trace(CELL)
    record = read_record(run_dir(RUN))
    assert record is not None
    for fact in (
        "linear/wmse-v1, task all",
        f"record: {record['id'][:12]}",
        "seed: 0",
        f"config: {sha256_json(record['config'])[:12]}",
        "python 3.11",
        "source: https://x/images.bin",
        f"data version: {json.loads((data_dir('toy') / 'card.json').read_text(encoding='utf-8'))['data_version']}",
    ):
        assert fact in text
    assert "✗" not in text
    assert text.splitlines()[-1].endswith("checks passed")


def test_common_ancestors_are_given_once(project: Path) -> None:
    titles = [title for title in _titles(CELL) if title == "prepare toy"]
    assert len(titles) == 1
    assert trace(CELL).count("see above") == 2


def test_two_runs_behind_one_cell_share_their_data(project: Path) -> None:
    other = "toy-simclr-s1-4567abcd"
    make_run(RUN)
    make_run(other)
    make_report("grid", RUN, other)
    titles = _titles(CELL)
    assert titles.count("accuracy = 91.25 %") == 2
    assert titles.count("prepare toy") == 1


def test_every_kind_of_id_is_found(project: Path) -> None:
    record = read_record(run_dir(RUN))
    assert record is not None
    pretrain = f"pretrain {RUN}"
    assert _titles(SCORE)[0] == "accuracy = 91.25 %"
    for name in (RUN, record["id"], record["id"][:8], str(run_dir(RUN)), str(run_dir(RUN) / "record.json")):
        assert _titles(name)[0] == pretrain
    assert _titles("results/report/grid/tables/main.csv")[:2] == ["results/report/grid/tables/main.csv", "report grid"]
    assert _titles(str(project / "results/report/grid/ids.json"))[1] == "report grid"
    for name in ("results/report/grid/tables", "results/report/grid/figures/"):
        assert _titles(name)[0] == "report grid"
    for name in ("data/raw/toy/images.bin", "data/raw/toy.dvc", "data/raw/toy"):
        assert _titles(name)[1:3] == ["read data/raw/toy.dvc", "fetch toy"]


@pytest.mark.parametrize(
    "name",
    [
        "a" * 5000,
        "nothing",
        "ffffffffffff",
        "ffffffff",
        "data/raw/none/x",
        "data/raw",
        "results/none/x/y",
        "../../etc/passwd",
        "",
    ],
)
def test_unknown_id_is_one_line(project: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        trace(name)
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)


def test_file_without_a_record_is_refused(project: Path) -> None:
    Path("results/stray/x").mkdir(parents=True)
    Path("results/stray/x/file").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="results/stray/x/file: no lineage record claims it"):
        trace("results/stray/x/file")


@pytest.mark.parametrize(
    ("path", "title"),
    [
        (f"results/runs/{RUN}/encoder.safetensors", f"read results/runs/{RUN}/encoder.safetensors"),
        ("results/data/toy/card.json", "read results/data/toy/card.json"),
        (f"results/runs/{RUN}/record.json", f"pretrain {RUN}"),
        (f"{scored(RUN)}/scores.csv", "accuracy = 91.25 %"),
        ("results/report/grid/ids.json", f"cell {CELL} = 91.25"),
        ("data/raw/toy/labels.csv", "read data/raw/toy/labels.csv"),
        ("data/raw/toy/labels.csv", "read data/raw/toy.dvc"),
        ("data/raw/toy.dvc", "read data/raw/toy.dvc"),
    ],
)
def test_what_was_altered_is_marked(project: Path, path: str, title: str) -> None:
    Path(path).write_text(Path(path).read_text(encoding="utf-8") + "\n", encoding="utf-8")
    wrong = {node["title"] for node in _nodes(lineage_tree(CELL)) if node["verified"] is False}
    assert title in wrong
    assert "✗" in trace(CELL).splitlines()[-1]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_check_that_failed_is_an_exit_code(
    project: Path, form: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", CELL, *form]) == 0
    capsys.readouterr()
    (run_dir(RUN) / "encoder.safetensors").write_bytes(b"other")
    assert main(["trace", CELL, *form]) == 1
    told = capsys.readouterr().out
    assert json.loads(told)["title"] == f"cell {CELL} = 91.25" if form else told.endswith("checks failed\n")
    assert main(["trace", "results/data/toy"]) == 0, "what lies next to it does not count"


def test_a_folder_that_no_step_made_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (report_dir("grid") / "stray").mkdir()
    assert main(["trace", "results/report/grid/stray"]) == 2
    assert capsys.readouterr().err == (
        "gessl: results/report/grid/stray: no lineage record claims anything in it; give a file that a step made\n"
    )


@pytest.mark.parametrize("content", [f"id\n{SCORE}\n".encode(), b"", b"\xff\0\r" * 99, b'"' * 200_000, None])
def test_score_tables_that_are_none_any_more_are_marked(project: Path, content: bytes | None) -> None:
    table = scored(RUN) / "scores.csv"
    table.unlink()
    table.mkdir() if content is None else table.write_bytes(content)
    assert "✗" in trace(CELL).splitlines()[-1]
    if content and SCORE.encode() in content:
        assert trace(SCORE).startswith("? = ? ? ✗")
    else:
        with pytest.raises(UserError, match="id of 0 records"):
            trace(SCORE)


@pytest.mark.parametrize(
    "cell", [{}, {"scores": 5}, {"scores": [{}]}, {"scores": SCORE, "text": "1"}, {"scores": None}]
)
def test_cells_whose_scores_are_none_are_marked(project: Path, cell: dict[str, Any]) -> None:
    ids = report_dir("grid") / "ids.json"
    ids.write_text(json.dumps({CELL: cell}), encoding="utf-8")
    entry = {"bytes": ids.stat().st_size, "sha256": sha256_file(ids)}
    forge(ids.parent, lambda found: next(out for out in found["outputs"] if out["path"] == str(ids)).update(entry))
    text = trace(CELL)
    assert text.startswith(f"cell {CELL} = {cell.get('text')} ✗") and "not found: " in text


@pytest.mark.parametrize("change", [{"code": {"sources": 5}}, {"environment": {"libraries": 7}}, {"command": [1]}])
def test_records_of_odd_types_are_marked(project: Path, change: dict[str, Any]) -> None:
    forge(run_dir(RUN), lambda found: found.update(change))
    assert f"{run_dir(RUN)}/record.json: no readable record ✗" in trace(CELL)


def test_a_record_that_cannot_be_hashed_is_marked(project: Path) -> None:
    path = run_dir(RUN) / "record.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"lr": 0.1', '"lr": NaN'), encoding="utf-8")
    assert trace(RUN).startswith(f"{path}: no readable record ✗\n")


def test_a_line_feed_makes_no_second_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forge(run_dir(RUN), lambda found: found.update(name="a\n✓ 9 checks passed"))
    assert trace(RUN).splitlines()[0] == r"pretrain a\n✓ 9 checks passed ✓"
    for name in ("a\nb", "results/a\nb"):
        assert main(["trace", name]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_was_made_again_is_marked(project: Path) -> None:
    make_again(data_dir("toy"))
    assert all(node["verified"] is not False for node in _nodes(lineage_tree(CELL))), "the bytes are the same"
    make_again(data_dir("toy"), {"images.npy": b"others"})
    node = next(node for node in _nodes(lineage_tree(RUN)) if node["title"] == "read results/data/toy/images.npy")
    assert node["verified"] is False
    assert "made again since" in node["facts"]


def test_lost_ancestors_are_said(project: Path) -> None:
    (data_dir("toy") / "record.json").write_text("{", encoding="utf-8")
    raw_dir("toy").rename("elsewhere")
    text = trace(CELL)
    assert "results/data/toy/record.json: no readable record ✗" in text
    (report_dir("grid") / "record.json").unlink()
    assert "not found: " + SCORE in trace(CELL)


def test_tree_is_json(project: Path) -> None:
    assert json.loads(json.dumps(lineage_tree(CELL)))["verified"] is True


def _planned_report(grid: str, values: dict[str, list[float]], change: dict[str, Any] | None = None) -> dict[str, str]:
    """A report of two variants with two seeds each, made by the report's own functions; its cells' ids by kind."""
    runs = [
        PlannedRun(f"r-{name}-s{seed}", "toy", "simclr", name, seed, "0" * 64, (("toy", "probes/v1"),))
        for name in values
        for seed in (0, 1)
    ]
    plan = ReportPlan(grid, grid, tuple(runs), (Comparison("gessl", "base", "simclr"),))
    header, row = SCORES_CSV.splitlines()[:2]
    for run in runs:
        if not scored(run.id).exists():
            train_and_score(run.id)
            name, value = sha256_json(run.id)[:12], str(values[run.variant][run.seed])
            line = row.replace(RUN, run.id).replace(SCORE, name).replace("91.25", value)
            table = scored(run.id) / "scores.csv"
            table.write_text(f"{header}\n{line}\n", encoding="utf-8")
            right = np.arange(400) < 4 * values[run.variant][run.seed]
            np.savez(table.with_name("outcomes.npz"), **{"linear/wmse-v1/all": right})
            for path in (table, table.with_name("outcomes.npz")):
                _own(path)
    config = json.loads(json.dumps(dataclasses.asdict(plan)))
    tables = {run.id for run in runs}
    cells = recompute(config, tables, {sha256_json(run.id)[:12] for run in runs})
    inputs = [scored(run.id) / "scores.csv" for run in runs]
    with Step("report", grid, report_dir(grid), inputs=inputs, config=config) as step:
        shown = {key: cell | (change or {}) for key, cell in cells.items()}
        step.path("ids.json").write_text(json.dumps(shown), encoding="utf-8")
    return {f"{cell['kind']} {cell['text']}": key for key, cell in cells.items()}


def _own(path: Path) -> None:
    """Let the record around a file name the bytes that it has now."""
    entry = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    forge(path.parent, lambda found: next(out for out in found["outputs"] if out["path"] == str(path)).update(entry))


VALUES = {"base": [90.0, 92.0], "gessl": [93.0, 94.0]}


def test_the_number_of_a_cell_is_computed_again(project: Path) -> None:
    cells = _planned_report("plan", VALUES)
    assert {name.split(" ±")[0] for name in cells} == {"mean 91.00", "mean 93.50", "difference +2.50"}
    for key in cells.values():
        text = trace(key)
        assert "not checked" not in text and text.splitlines()[-1].startswith("✓ ")
        assert f"the number of cell {key}, from its scores ✓" in text


@pytest.mark.parametrize("change", [{"text": "99.00"}, {"text": "−2.50"}, {"kind": "median"}])
def test_a_cell_that_says_something_else_than_its_scores_is_marked(project: Path, change: dict[str, str]) -> None:
    for key in _planned_report("plan", VALUES, change).values():
        assert f"the number of cell {key}, from its scores ✗" in trace(key)
        assert main(["trace", key]) == 1


def test_a_plan_that_cannot_be_one_is_marked(project: Path) -> None:
    key = next(iter(_planned_report("plan", VALUES).values()))
    for runs in (5, [5], [{"id": 1}], []):
        forge(report_dir("plan"), lambda found, runs=runs: found["config"].update(runs=runs))  # type: ignore[misc]
        assert main(["trace", key]) == 1


def test_reports_that_hold_the_same_cell_must_agree(project: Path) -> None:
    key = next(iter(_planned_report("a", VALUES).values()))
    _planned_report("b", VALUES)
    assert "also in results/report/b/ids.json" in trace(key) and main(["trace", key]) == 0
    _planned_report("b", VALUES, {"text": "99.00"})
    assert "also in results/report/b/ids.json: 99.00 ✗" in trace(key) and main(["trace", key]) == 1


def test_a_table_that_was_made_again_since_the_report_is_marked(project: Path) -> None:
    key = next(iter(_planned_report("plan", VALUES).values()))
    table = scored("r-base-s0") / "scores.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("90.0", "99.0"), encoding="utf-8")
    _own(table)
    text = trace(key)
    assert "accuracy = 99.0 % ✗" in text and "made again since" in text and "from its scores ✗" in text


@pytest.mark.parametrize("name", ["encoder.safetensors", "model.safetensors", "metrics.jsonl"])
def test_what_a_run_wrote_is_checked(project: Path, name: str) -> None:
    assert main(["trace", RUN]) == 0
    (run_dir(RUN) / name).write_bytes(b"other")
    assert f"altered or missing: {run_dir(RUN) / name}" in trace(RUN)
    assert main(["trace", RUN]) == 1


def test_what_was_not_checked_is_said(project: Path) -> None:
    lines = trace(CELL).splitlines()
    assert lines[-2] == f"not checked: the number of cell {CELL}, from its scores"
