"""What an audit says: kinds, causes, exit codes, the head, and both forms of the verdict."""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gessl.audit import contents
from gessl.audit.audit import audit, format_verdict
from gessl.cli import main
from gessl.layout import LOCK, RECORD, data_dir, manifest_dir, report_dir, run_dir
from gessl.records import provenance, record, step
from tests.support.toy_project import RUN, drawn, make_again, make_report, make_run, scored

FOLDERS = {
    "fetch": manifest_dir("toy"),
    "prepare": data_dir("toy"),
    "tasks": drawn("toy"),
    "pretrain": run_dir(RUN),
    "evaluate": scored(RUN),
    "report": report_dir("grid"),
}
SCORES = scored(RUN) / "scores.csv"


def _found() -> set[tuple[str, str, str]]:
    return {(finding.kind, finding.cause, finding.path) for finding in audit().findings}


def _alter() -> None:
    SCORES.write_text(SCORES.read_text(encoding="utf-8").replace("91.25", "99.25"), encoding="utf-8")


def _slip_in() -> None:
    Path("results/notes.txt").write_text("x", encoding="utf-8")


def _new_lock() -> None:
    LOCK.write_text("torch==99\n", encoding="utf-8")


def _record_before_its_maker() -> None:
    """What a record of a file that nothing claimed looks like; `Step` itself refuses to write it."""
    path = report_dir("grid") / RECORD
    forged = record.parse_record(path.read_bytes())
    forged["inputs"][0]["record"] = None
    path.write_text(record.record_text(forged | {"id": record.record_id(forged)}), encoding="utf-8")


CASES: list[tuple[Callable[[], object], int, set[tuple[str, str, str]]]] = [
    (lambda: None, 0, set()),
    (_alter, 1, {("altered", "", str(SCORES))}),
    (SCORES.unlink, 1, {("missing", "", str(SCORES))}),
    (_slip_in, 1, {("orphaned", "", "results/notes.txt")}),
    (_record_before_its_maker, 1, {("unverifiable", "", str(SCORES))}),
    (
        lambda: make_again(SCORES.parent, {SCORES.name: SCORES.read_bytes() + b"\n"}),
        1,
        {("stale", "inputs", str(report_dir("grid")))},
    ),
    (_new_lock, 3, {("stale", "environment", str(folder)) for folder in FOLDERS.values()}),
]


@pytest.mark.parametrize(
    ("change", "code", "findings"),
    CASES,
    ids=["untouched", "altered", "missing", "orphaned", "unverifiable", "inputs", "environment"],
)
def test_each_kind_has_its_exit_code(
    project: Path,
    change: Callable[[], object],
    code: int,
    findings: set[tuple[str, str, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    change()
    assert _found() == findings
    assert main(["audit"]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith({0: "audit passed: ", 1: "audit FAILED: 1 ", 3: "audit: all as recorded, but"}[code])
    for kind, _, path in findings:
        (line,) = (line for line in lines if line.startswith(f"{kind}: {path}: "))
        assert line.count("; ") >= 1, "it says what to do"


def test_what_is_altered_outweighs_what_is_outdated(project: Path) -> None:
    _new_lock()
    _alter()
    verdict = audit()
    assert verdict.exit_code == 1
    assert verdict.findings[0].kind == "altered"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of this package, whose sources are those of the present."""
    copy = tmp_path / provenance.PACKAGE.name
    shutil.copytree(provenance.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    monkeypatch.setattr(provenance, "fingerprint", provenance.fingerprint.__wrapped__)
    return copy


@pytest.mark.parametrize(
    ("source", "steps"),
    [
        ("data/fetch.py", {"fetch"}),
        ("evaluation/draw.py", {"tasks"}),
        ("protocols/fewshot__proto_v1.py", {"tasks"}),
        ("training/pretrain.py", {"pretrain"}),
        ("report/step.py", {"report"}),
        ("files.py", set(FOLDERS)),
        ("cli.py", set()),
    ],
)
def test_a_step_is_stale_once_a_source_that_it_uses_changes(
    project: Path, sources: Path, source: str, steps: set[str]
) -> None:
    assert audit().ok
    (sources / source).write_text((sources / source).read_text(encoding="utf-8") + "# another line\n", encoding="utf-8")
    assert _found() == {("stale", "code", str(FOLDERS[step])) for step in steps}
    assert audit().exit_code == (3 if steps else 0)


def test_a_step_whose_sources_cannot_be_read_is_stale(project: Path, sources: Path) -> None:
    (sources / "report/step.py").write_text("def half(", encoding="utf-8")
    assert _found() == {("stale", "code", str(report_dir("grid")))}
    (sources / "report/step.py").unlink()
    assert _found() == {("stale", "code", str(report_dir("grid")))}


def test_what_the_record_does_not_tell_is_a_note(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "code_state", lambda: {"commit": None, "dirty": "d", "sources": "s"})
    monkeypatch.setattr(step, "step_fingerprint", lambda step, config: None)
    make_report("grid", RUN)
    verdict = audit()
    assert verdict.ok
    assert any(note.endswith("of 6 records were made with uncommitted changes") for note in verdict.notes)
    assert "1 of 6 records were made by unnamed sources, which may have changed since" in verdict.notes
    assert f"note: {verdict.notes[0]}" in format_verdict(verdict).splitlines()


def test_what_went_wrong_ten_times_is_told_once(project: Path) -> None:
    for number in range(1, 4):
        make_run(f"toy-simclr-s{number}-0123abcd")
    (data_dir("toy") / RECORD).unlink()
    lines = [line for line in format_verdict(audit()).splitlines() if f"{data_dir('toy')}/images.npy" in line]
    assert len(lines) == len(set(lines))
    assert any("more)" in line for line in lines)


def test_unreadable_file_is_unverifiable(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that fails; permissions do not stop root, who may run the tests."""
    unreadable, original = str(run_dir(RUN) / "config.json"), contents._read_one

    def read(want: contents.Wanted, stop: threading.Event) -> tuple[str, contents.Content]:
        if want.path == unreadable:
            return want.path, contents.Content(0, error="Input/output error")
        return original(want, stop)

    monkeypatch.setattr(contents, "_read_one", read)
    assert _found() == {("unverifiable", "", unreadable)}
    assert "Input/output error" in format_verdict(audit())


def _rfc6962(leaves: list[bytes]) -> bytes:
    """Section 2.1 as it is written, by recursion."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    half = 1
    while 2 * half < len(leaves):
        half *= 2
    return hashlib.sha256(b"\1" + _rfc6962(leaves[:half]) + _rfc6962(leaves[half:])).digest()


def _ids() -> Iterator[bytes]:
    for path in Path("results").rglob(RECORD):
        yield bytes.fromhex(record.parse_record(path.read_bytes())["id"])


def test_the_head_is_the_merkle_root_of_the_ids(project: Path) -> None:
    for number in range(5):  # 6, 9, 12, 15, 18 records
        assert audit().head == _rfc6962(sorted(_ids())).hex()
        make_run(f"toy-simclr-s{number}-4567abcd")


def test_another_head_than_expected_is_an_alteration(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = audit().head
    assert main(["audit", "--head", head]) == 0
    shutil.rmtree(report_dir("grid"))
    assert audit().ok
    capsys.readouterr()
    assert main(["audit", "--head", head]) == 1
    assert f"altered: results: its head is {audit().head}, expected is {head}" in capsys.readouterr().out
    assert main(["audit", "--head", head[:12]]) == 2
    assert (
        capsys.readouterr().err
        == f"gessl: --head {head[:12]}: not the 64 hex digits that an audit prints as the head\n"
    )


def test_two_heads_to_expect_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A signed one would hide the other."""
    with pytest.raises(SystemExit) as stopped:
        main(["audit", "--head", audit().head, "--signed", "signers"])
    assert stopped.value.code == 2
    assert "--signed: not allowed with argument --head" in capsys.readouterr().err


def test_json_has_the_documented_fields(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--json"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    passed = json.loads(told.out)
    documented = (Path(__file__).parents[2] / "docs/audit.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in documented for key in (*passed, "kind", "path", "what", "fix", "cause"))
    assert passed["schema"] == "gessl/audit/1"
    assert (passed["ok"], passed["exit_code"], passed["findings"], passed["records"]) == (True, 0, [], 6)
    assert len(passed["head"]) == 64

    _alter()
    _new_lock()
    assert main(["audit", "--json"]) == 1
    told = capsys.readouterr()
    failed = json.loads(told.out)
    assert told.err == format_verdict(audit()) + "\n"
    assert failed.keys() == passed.keys()
    assert (failed["ok"], failed["exit_code"]) == (False, 1)
    first = failed["findings"][0]
    assert first.keys() == {"kind", "path", "what", "fix", "cause"}
    assert (first["kind"], first["path"], first["cause"]) == ("altered", str(SCORES), "")
    assert {finding["cause"] for finding in failed["findings"]} == {"", "environment"}


def test_names_cannot_break_the_lines(project: Path) -> None:
    os.rename(run_dir(RUN) / "config.json", run_dir(RUN) / "con\nfig\x1b[2J.json")
    lines = format_verdict(audit()).splitlines()
    assert len([line for line in lines if "results/runs" in line]) == 2
    assert all(line.isprintable() for line in lines)


def test_bad_input_is_one_line_and_exit_code_2(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in ("nowhere", "results/runs", "/", "data"):
        assert main(["audit", path]) == 2, path
        told = capsys.readouterr()
        assert told.out == ""
        assert len(told.err.splitlines()) == 1, told.err


def test_a_project_is_audited_from_anywhere(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "."]) == 0
    monkeypatch.chdir(tmp_path)
    for path in (project, project / "results", os.path.relpath(project)):
        capsys.readouterr()
        assert main(["audit", str(path)]) == 0
        assert capsys.readouterr().out.startswith("audit passed: 6 records, ")
    assert Path.cwd() == tmp_path
    for inside in ("results", "results/runs"):
        monkeypatch.chdir(project / inside)
        assert main(["audit", os.path.relpath(project / "results")]) == 0, f"{inside}: as . or as .."
    assert main(["audit", "."]) == 2, "a part of the results"
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    (project / SCORES).unlink()
    assert main(["audit", str(project)]) == 1
    assert f"missing: {SCORES}: " in capsys.readouterr().out


def test_a_good_project_inside_the_results_hides_nothing(project: Path) -> None:
    shutil.copytree("results", "aside")
    shutil.copytree("data", "results/data", dirs_exist_ok=True)
    shutil.move("aside", "results/results")
    _alter()
    assert ("altered", "", str(SCORES)) in _found()


def test_new_data_make_all_that_was_made_from_the_old_stale(project: Path) -> None:
    make_again(data_dir("toy"), {"images.npy": b"others"})
    stale = {path for kind, cause, path in _found() if (kind, cause) == ("stale", "inputs")}
    assert stale == {str(FOLDERS[step]) for step in ("tasks", "pretrain", "evaluate")}
