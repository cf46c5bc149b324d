import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from repositories import forge
from toy_project import CELL, RUN, SCORE, make_data, make_report, make_run, write_pin

from gessl.cli import main
from gessl.errors import UserError
from gessl.files import sha256_file, sha256_json
from gessl.layout import data_dir, raw_dir, report_dir, run_dir, scores_dir
from gessl.lineage.record import read_record
from gessl.lineage.trace import format_tree, lineage_tree


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node["children"]:
        yield from _nodes(child)


def trace(identifier: str) -> str:
    return format_tree(lineage_tree(identifier))


def _titles(identifier: str) -> list[str]:
    return [node["title"] for node in _nodes(lineage_tree(identifier)) if not node.get("told")]


def test_cell_leads_to_the_published_source(project: Path) -> None:
    titles = _titles(CELL)
    assert titles[:3] == [f"cell {CELL} = 91.25", "accuracy = 91.25 %", f"evaluate {RUN}"]
    assert {f"pretrain {RUN}", "tasks toy-s0", "prepare toy", "fetch toy", "read data/raw/toy.dvc"} <= set(titles)
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


def test_common_ancestors_are_told_once(project: Path) -> None:
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
        (f"results/scores/{RUN}/scores.csv", "accuracy = 91.25 %"),
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
    assert main(["trace", "results/data/toy"]) == 0, "what lies beside it does not count"


def test_a_folder_that_no_step_made_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (report_dir("grid") / "stray").mkdir()
    assert main(["trace", "results/report/grid/stray"]) == 2
    assert capsys.readouterr().err == (
        "gessl: results/report/grid/stray: no lineage record claims anything in it; give a file that a step made\n"
    )


@pytest.mark.parametrize("content", [f"id\n{SCORE}\n".encode(), b"", b"\xff\0\r" * 99, b'"' * 200_000, None])
def test_score_tables_that_are_none_any_more_are_marked(project: Path, content: bytes | None) -> None:
    table = scores_dir(RUN) / "scores.csv"
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
    make_data("toy", write_pin("toy"))
    node = next(node for node in _nodes(lineage_tree(RUN)) if node["title"] == "read results/data/toy/images.npy")
    assert node["verified"] is False
    assert "made again since" in node["facts"]


def test_lost_ancestors_are_told(project: Path) -> None:
    (data_dir("toy") / "record.json").write_text("{", encoding="utf-8")
    raw_dir("toy").rename("elsewhere")
    text = trace(CELL)
    assert "results/data/toy/record.json: no readable record ✗" in text
    (report_dir("grid") / "record.json").unlink()
    assert "not found: " + SCORE in trace(CELL)


def test_tree_is_json(project: Path) -> None:
    assert json.loads(json.dumps(lineage_tree(CELL)))["verified"] is True
