"""A grid is judged by what its report is made of: by all of that, as strictly as ever, and by nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gessl.audit.audit import audit, format_verdict, verdict_json
from gessl.errors import UserError
from gessl.layout import pin, raw_dir, report_dir, run_dir
from tests.support.toy_project import make_data, make_raw, make_report, make_run, scored, train_and_score

OTHER = "toy-byol-s0-0123abcd"


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])


def slip_in(path: Path) -> None:
    (path.parent / "slipped-in").touch()


def stage(path: Path) -> None:
    (path.parent / ".staging/files").mkdir(parents=True, exist_ok=True)
    (path.parent / ".staging/lock").touch()


def grow(path: Path) -> None:
    """A record that is none."""
    (path.parent / "record.json").write_text("{", encoding="utf-8")


MISCHIEF = (flip, Path.unlink, slip_in, stage, grow)


def files() -> list[Path]:
    return sorted(path for top in ("results", "data/raw") for path in Path(top).rglob("*") if path.is_file())


def first_of_each_folder() -> list[Path]:
    """Where steps write, and of raw data those of one pin: what lies next to that is no part of any grid."""
    return [path for path in {path.parent: path for path in files()}.values() if path.parent != Path("data/raw")]


@pytest.mark.parametrize("change", MISCHIEF, ids=lambda change: change.__name__)
def test_nothing_of_the_chain_goes_unnoticed(project: Path, change: Callable[[Path], object]) -> None:
    """Where nothing else lies there, it finds all that the whole audit finds, file by file."""
    alone = audit(grids=["grid"])
    assert alone.ok and verdict_json(alone) == verdict_json(audit()) | {"grids": ("grid",)}
    for path in files() if change in (flip, Path.unlink) else first_of_each_folder():
        if change is Path.unlink and path == report_dir("grid") / "record.json":
            continue  # then nobody knows what it was made of, and the line below is all
        before = {file: file.read_bytes() for file in files()}
        change(path)
        found = audit(grids=["grid"]).findings
        assert found == audit().findings and found, path
        for file in {*files()} - before.keys():
            file.unlink()
        shutil.rmtree(path.parent / ".staging", ignore_errors=True)
        for file in {path, path.parent / "record.json"} & before.keys():
            file.write_bytes(before[file])
    (report_dir("grid") / "record.json").unlink()
    assert "missing" in {finding.kind for finding in audit(grids=["grid"]).findings}


@pytest.fixture
def two(project: Path) -> Path:
    """The project with another grid of the same data, and one of other data."""
    train_and_score(OTHER)
    make_report("other", OTHER)
    make_data("elsewhere", make_raw("elsewhere"))
    make_run("elsewhere-simclr-s0-0123abcd", "elsewhere")
    make_report("far", "elsewhere-simclr-s0-0123abcd")
    return project


def test_what_others_left_fails_nobody_else(two: Path) -> None:
    before = audit(grids=["grid"])
    assert before.ok and before.records == 6 and before.head != audit().head
    assert before.notes[0] == "9 other results were not looked at; `gessl audit` looks at everything"
    folders = (run_dir(OTHER), scored(OTHER), report_dir("other"), Path("results/data/elsewhere"))
    for path in (*(next(folder.glob("[a-q]*")) for folder in folders), raw_dir("elsewhere") / "images.bin"):
        flip(path)
        assert str(path) in {finding.path for finding in audit().findings}
    pin("elsewhere").write_text("outs: [", encoding="utf-8")
    grow(scored(OTHER) / "scores.csv")
    for run in (OTHER, "killed"):
        stage(run_dir(run) / "config.json")
    Path("results/notes.txt").touch()
    after = audit(grids=["grid"])
    assert after.findings == () and after.head == before.head
    left = "11 other results (2 of them half made: .staging) were not looked at"
    assert after.notes[0].startswith(left)
    assert left in format_verdict(after)
    assert {"results/notes.txt", str(run_dir("killed") / ".staging"), str(pin("elsewhere"))} <= {
        finding.path for finding in audit().findings
    }
    assert audit(grids=["other"]).exit_code == audit(grids=["grid", "far"]).exit_code == 1


def test_what_grids_share_fails_them_all(two: Path) -> None:
    flip(raw_dir("toy") / "images.bin")
    for grid, code in (("grid", 1), ("other", 1), ("far", 0)):
        assert audit(grids=[grid]).exit_code == code


def test_a_grid_without_a_report_cannot_be_audited(project: Path) -> None:
    with pytest.raises(UserError, match=r"^results/report/none: no report to audit; run the workflow first$"):
        audit(grids=["grid", "none"])
    assert json.loads(json.dumps(verdict_json(audit(grids=["grid"]))))["grids"] == ["grid"]
