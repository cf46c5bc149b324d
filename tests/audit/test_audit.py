import shutil
import time
from pathlib import Path

import pytest

from gessl.audit.audit import audit, format_verdict
from gessl.audit.checks import check_ancestry
from gessl.audit.contents import files_below
from gessl.audit.ledger import Ledger
from gessl.errors import UserError
from gessl.files import sha256_file
from gessl.layout import data_dir, manifest_dir, raw_dir, report_dir, run_dir
from gessl.records.record import parse_record, read_record, record_id, record_text
from gessl.records.step import Step
from tests.support.toy_project import (
    RUN,
    drawn,
    make_again,
    make_data,
    make_raw,
    make_report,
    scored,
    train_and_score,
    write_pin,
)

RECORDS = 6


def _files() -> list[Path]:
    return sorted(path for top in ("results", "data/raw") for path in Path(top).rglob("*") if path.is_file())


def _kinds(path: Path | str) -> set[str]:
    return {finding.kind for finding in audit().findings if finding.path == str(path)}


def test_untouched_tree_passes_and_every_file_is_counted(project: Path) -> None:
    verdict = audit()
    assert verdict.ok, format_verdict(verdict)
    files = _files()
    assert (verdict.records, verdict.files) == (RECORDS, len(files))
    assert verdict.bytes == sum(path.stat().st_size for path in files)


def test_every_byte_of_a_record_counts_white_space_too(project: Path) -> None:
    path = run_dir(RUN) / "record.json"
    text = path.read_text(encoding="utf-8")
    for altered in (text + "\n", text.replace("  ", " ", 1), text.replace('": ', '":', 1), text.rstrip(), ""):
        path.write_text(altered, encoding="utf-8")
        verdict = audit()
        assert [(finding.kind, finding.path) for finding in verdict.findings] == [("altered", str(path))]


def test_a_flipped_bit_in_a_record_is_found_wherever_it_is(project: Path) -> None:
    path = data_dir("toy") / "record.json"
    before = path.read_bytes()
    for place in range(0, len(before), 29):
        path.write_bytes(before[:place] + bytes([before[place] ^ 4]) + before[place + 1 :])
        assert "altered" in _kinds(path), before[place - 20 : place + 20]


@pytest.mark.parametrize(
    "place", ["results/x.txt", "results/runs/x", "results/data/toy/more/x", "results/new/thing/x", "data/raw/toy/x"]
)
def test_extra_file_is_orphaned(project: Path, place: str) -> None:
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Path(place).write_text("slipped in", encoding="utf-8")
    assert _kinds(place) == {"orphaned"}


def test_extra_folder_of_raw_data_has_no_pin(project: Path) -> None:
    Path("data/raw/other").mkdir()
    Path("data/raw/other/x").write_text("x", encoding="utf-8")
    assert _kinds("data/raw/other") == {"unverifiable"}


def test_a_pin_of_data_that_nobody_fetched_here_is_no_fault(project: Path) -> None:
    make_raw("elsewhere")
    shutil.rmtree("data/raw/elsewhere")
    manifest = manifest_dir("elsewhere")
    if manifest.is_dir():
        shutil.rmtree(manifest)
    assert audit().ok


def test_all_of_the_raw_data_and_their_manifest_are_missed(project: Path) -> None:
    shutil.rmtree("data/raw/toy")
    shutil.rmtree(manifest_dir("toy"))
    assert not audit().ok


def test_staging_left_by_a_killed_step_is_orphaned(project: Path) -> None:
    staging = run_dir(RUN) / ".staging"
    (staging / "files").mkdir(parents=True)
    (staging / "lock").touch()
    assert [(finding.kind, finding.path) for finding in audit().findings] == [("orphaned", str(staging))]


def test_removed_record_is_missing_and_its_files_orphaned(project: Path) -> None:
    (run_dir(RUN) / "record.json").unlink()
    assert _kinds(run_dir(RUN) / "record.json") == {"missing"}
    assert "orphaned" in _kinds(run_dir(RUN) / "config.json")


def test_copied_folder_and_its_files_are_orphaned(project: Path) -> None:
    copy = run_dir("copy")
    shutil.copytree(run_dir(RUN), copy)
    found = {(finding.kind, finding.path) for finding in audit().findings}
    assert found == {("orphaned", str(path)) for path in copy.iterdir()}


def test_forged_record_breaks_the_chain(project: Path) -> None:
    """Altering a file *and* signing it again in its record is seen by those who read it."""
    data = data_dir("toy")
    (data / "images.npy").write_bytes(b"forged")
    forged = parse_record((data / "record.json").read_bytes())
    for output in forged["outputs"]:
        if output["path"].endswith("images.npy"):
            output |= {"bytes": 6, "sha256": sha256_file(data / "images.npy")}
    kept = forged | {"id": record_id(forged)}
    (data / "record.json").write_text(record_text(kept), encoding="utf-8")
    stale = {finding.path for finding in audit().findings if finding.kind == "stale"}
    assert stale == {str(drawn("toy")), str(run_dir(RUN)), str(scored(RUN))}
    (data / "record.json").write_text(
        record_text(forged), encoding="utf-8"
    )  # the old id kept: the record no longer has it
    assert "altered" in _kinds(data / "record.json")
    assert "altered" in _kinds(run_dir(RUN) / "record.json")


def test_what_was_made_again_to_other_bytes_makes_stale_what_came_of_them(project: Path) -> None:
    make_again(data_dir("toy"), {"card.json": b"{}"})
    assert [(finding.kind, finding.path) for finding in audit().findings] == [("stale", str(run_dir(RUN)))]
    train_and_score(RUN)
    assert audit().ok, "the weights are the same, so what was made from them stays"
    make_again(scored(RUN), {"scores.csv": (scored(RUN) / "scores.csv").read_bytes() + b"\n"})
    assert [(finding.kind, finding.path) for finding in audit().findings] == [("stale", str(report_dir("grid")))]
    make_report("grid", RUN)
    assert audit().ok


def test_what_was_made_again_to_the_same_bytes_makes_nothing_stale(project: Path) -> None:
    time.sleep(1.1)  # records tell times by the second
    for folder in (manifest_dir("toy"), data_dir("toy"), data_dir("toy"), run_dir(RUN), scored(RUN)):
        before = read_record(folder)
        make_again(folder)
        assert before != read_record(folder)
        verdict = audit()
        assert verdict.ok
        assert not [note for note in verdict.notes if "times" in note]


def test_new_raw_data_are_altered_for_what_was_made_from_the_old(project: Path) -> None:
    (raw_dir("toy") / "labels.csv").write_bytes(b"0,2\n")
    write_pin("toy")
    assert "altered" in _kinds("data/raw/toy.dvc")
    assert "altered" in _kinds("data/raw/toy/labels.csv")


def test_data_version_in_the_settings_must_be_the_pins(project: Path) -> None:
    make_data("toy", "0" * 32 + ".dir")
    assert "stale" in _kinds(data_dir("toy"))


def test_result_that_leads_to_no_raw_data_is_unverifiable(project: Path) -> None:
    with Step("pretrain", "loose", run_dir("loose"), inputs=[], config={}) as step:
        step.path("encoder.safetensors").write_bytes(b"from nowhere")
    assert [(finding.kind, finding.path) for finding in audit().findings] == [("unverifiable", str(run_dir("loose")))]


def test_raw_data_gone_are_missing(project: Path) -> None:
    shutil.rmtree(raw_dir("toy"))
    assert _kinds(raw_dir("toy")) == _kinds(raw_dir("toy") / "labels.csv") == {"missing"}


def test_raw_file_is_named_by_the_manifest_even_if_no_step_read_it(project: Path) -> None:
    shutil.rmtree("results/data"), shutil.rmtree("results/tasks"), shutil.rmtree("results/runs")
    shutil.rmtree("results/scores"), shutil.rmtree("results/report")
    assert audit().ok
    (raw_dir("toy") / "labels.csv").write_bytes(b"0,1\n1,1\n")
    assert _kinds(raw_dir("toy") / "labels.csv") == {"altered"}
    Path("results/raw/toy/manifest.json").write_text("{}", encoding="utf-8")
    assert _kinds(raw_dir("toy")) == {"altered"}


def test_records_that_name_each_other_are_a_cycle(project: Path) -> None:
    def forge(name: str, parent: str) -> None:
        step = parse_record((run_dir(RUN) / "record.json").read_bytes()) | {"step": "other", "id": name}
        entry = {"path": f"results/x/{parent}/f", "bytes": 0, "sha256": "0"}
        step["outputs"] = [entry | {"path": f"results/x/{name}/f"}]
        step["inputs"] = [entry | {"record": parent}]
        Path(f"results/x/{name}").mkdir(parents=True)
        Path(f"results/x/{name}/record.json").write_text(record_text(step), encoding="utf-8")

    forge("a", "b")
    forge("b", "a")
    ledger = Ledger(Path("results"), files_below(Path("results")))
    assert [finding.what.partition(":")[0] for finding in check_ancestry(ledger)] == ["made from itself"]
    assert not audit().ok


def test_results_may_lie_behind_a_link(project: Path) -> None:
    shutil.move("results/runs", "elsewhere")
    Path("results/runs").symlink_to(Path("elsewhere").absolute())
    assert audit().ok
    Path("elsewhere/loop").symlink_to(Path("results/runs").absolute())
    assert [(finding.kind, finding.path) for finding in audit().findings] == [("orphaned", "results/runs/loop")]


def test_nothing_to_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="results: no such folder"):
        audit()
    Path("results/empty").mkdir(parents=True)
    with pytest.raises(UserError, match="results: nothing in it"):
        audit()
    with pytest.raises(UserError, match="results/empty: a part of results"):
        audit(Path("results/empty"))
