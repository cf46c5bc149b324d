"""Every table and figure of the paper from raw files to the audit, at fixture size (`tests.support.paper_tiny`)."""

import csv
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gessl.cli import main
from gessl.documents import read_document
from gessl.grid.batch import ExperimentBatch
from tests.conftest import ROOT
from tests.support.paper_tiny import LEFT_OUT, make
from tests.workflow.test_pipeline import SNAKEMAKE

PAPER = Path("config/paper.yaml")
NOT_YET = {"transfer-detection": 3, "video-tracking": 5}
"""Tables whose protocols are missing, and how many."""
NOT_SMALL = ("config", *LEFT_OUT)
CUT = ("methods", "variants", "comparisons", "axes", "seeds")
"""What may be shorter."""
SIZES = ("backbone", "device", "compile", "name", "sha256", "bytes", "md5")
"""What may be another thing: networks and where they are computed, and what identifies a file."""

NUMBERED = re.compile(r"w\d+s|-[a-z_]+[\d.]+(?=-|$)")
"""What tells numbers in a text: shots, and in the id of a score that of a trial (`-epochs4`)."""

Leaves = dict[tuple[str | int, ...], Any]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("paper") / "tiny")


def leaves(tree: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The values of a document by their places."""
    pairs = list(tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ())
    if not pairs:
        yield at, tree
    for key, value in pairs:
        yield from leaves(value, (*at, key))


def alike(real: Any, small: Any) -> bool:
    """The same thing, or another number; so are texts with other numbers of shots."""
    if isinstance(real, bool) or isinstance(small, bool) or real is None or small is None:
        return real is small
    if isinstance(real, str) and isinstance(small, str):
        return NUMBERED.sub("", real) == NUMBERED.sub("", small)
    return real == small or (isinstance(real, int | float) and isinstance(small, int | float))


def document(path: Path) -> Leaves:
    return dict(leaves(read_document(path).tree))


def test_only_numbers_differ(tiny: Path) -> None:
    files = [path.relative_to(ROOT) for path in (ROOT / "config").rglob("*.yaml") if path.stem not in NOT_SMALL]
    assert len(files) > 100
    changed = 0
    for file in files:
        real, small = document(ROOT / file), document(tiny / file)
        for at, value in small.items():
            if isinstance(value, dict | list) and at[0] in CUT:
                continue  # all that was under it is cut
            assert at in real, f"{file}: {at}"
            network = bool(set(at) & set(SIZES)) and "datasets" not in at
            assert network or alike(real[at], value), f"{file}: {at}: {real[at]} is now {value}"
        lacking = {at for at in set(real) - set(small) if at[0] not in CUT and "before_end" not in at}
        assert not lacking, f"{file}: {lacking}"
        changed += real != small
    assert changed > 50
    assert (tiny / PAPER).read_bytes() == (ROOT / PAPER).read_bytes()


def test_what_is_left_out_lacks_a_protocol_and_nothing_else(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny)
    batch = ExperimentBatch.load([PAPER])
    said = [re.match(r"config/paper/([\w-]+)\.yaml:\d+: evaluation\.\d+: no protocol ", line) for line in batch.skipped]
    assert all(said), batch.skipped
    names = [found[1] for found in said if found]
    assert {name: names.count(name) for name in names} == NOT_YET
    files = {path.stem for path in Path("config/paper").glob("*.yaml")}
    assert set(batch.experiments) == files - set(NOT_YET)
    for name, experiment in batch.experiments.items():
        assert {cell.science.seed for cell in experiment.runs()} == {0, 1}, name
        assert len({cell.variant for cell in experiment.runs()}) >= 2, name


@pytest.mark.paper
def test_every_table_and_figure_is_made_and_audited(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny)
    words = [*SNAKEMAKE, "--configfile", str(PAPER), "--cores", "2"]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", timeout=3000)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    assert json.loads(Path("logs/audit.json").read_text(encoding="utf-8"))["ok"] is True
    assert main(["audit"]) == 0
    for name, experiment in ExperimentBatch.load([PAPER]).experiments.items():
        folder = Path("results/report") / name
        assert (folder / "sigma-report.html").stat().st_size > 0
        assert list((folder / "figures").glob("*.svg")), name
        assert list((folder / "tables").glob("*.csv")), name
        layout = experiment.table
        if layout is None:
            continue
        assert (folder / "tables/paper.tex").stat().st_size > 0
        rows = csv.DictReader((folder / "tables/paper.csv").read_text(encoding="utf-8").splitlines())
        ours = [row for row in rows if not row["source"]]
        assert len(ours) >= 2 * len(layout.columns), name
        # the small ImageNet has four classes, of which the right one is always among five
        empty = [
            row for row in ours if not row["text"] and not (row["metric"] == "top5" and "imagenet" in row["target"])
        ]
        assert not empty, f"{name}: {empty}"
