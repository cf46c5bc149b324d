"""Trees that somebody else made: bounded time and memory, one line, and nothing written outside."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gessl import files
from gessl.audit import contents
from gessl.audit.audit import audit
from gessl.audit.rocrate import write_crate
from gessl.cli import main
from gessl.data.pin import read_pin
from gessl.errors import UserError
from gessl.files import parse_json, read_bounded, sha256_file
from gessl.layout import data_dir, report_dir, run_dir
from gessl.records import step as step_module
from gessl.records.record import parse_record, record_text
from gessl.records.step import Step
from tests.support.repositories import forge
from tests.support.toy_project import CELL, RUN, scored

HUGE = 30_000_000_000  # bytes of a file of holes: nothing on the disk, a minute or more to read


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Whoever waits for a pipe, or reads a device without end, is stopped."""

    def stop(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _hollow(path: Path, size: int = HUGE) -> None:
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(size)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _ring(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


MAKERS = [_hollow, _pipe, _device, _ring]
FILES = [
    run_dir(RUN) / "encoder.safetensors",
    run_dir(RUN) / "record.json",
    scored(RUN) / "scores.csv",
    scored(RUN) / "record.json",
    report_dir("grid") / "ids.json",
    data_dir("toy") / "card.json",
    Path("results/raw/toy/manifest.json"),
    Path("data/raw/toy/images.bin"),
    Path("data/raw/toy.dvc"),
]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_file_takes_time_or_memory_without_end(
    project: Path, path: Path, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    make(path)
    found = audit()
    assert any(finding.path.startswith(str(path.parent)) or finding.path == str(path) for finding in found.findings)
    for words in (["trace", CELL], ["trace", RUN], ["diff", RUN, RUN], ["crate", "grid", "out"], ["trace", "ffffffff"]):
        code = main(words)
        told = capsys.readouterr()
        assert code in (0, 1, 2), words
        assert len(told.err.splitlines()) <= 1
    assert main(["trace", CELL]) in (1, 2)


def test_a_file_of_the_recorded_size_that_is_nearly_all_holes_is_not_read(project: Path) -> None:
    encoder = run_dir(RUN) / "encoder.safetensors"
    _hollow(encoder)
    record = parse_record((encoder.parent / "record.json").read_bytes())
    for output in record["outputs"]:
        if output["path"] == str(encoder):
            output["bytes"] = HUGE
    forge(encoder.parent, lambda found: found.update(record))
    told = [finding.what for finding in audit().findings if finding.path == str(encoder)]
    assert told == ["nearly all of it is holes, so it was not read"]
    assert main(["trace", RUN]) == 1


def test_a_file_of_another_size_is_not_opened(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = run_dir(RUN) / "encoder.safetensors"
    encoder.write_bytes(b"more" * 99_999)

    def watched(path: str) -> Any:
        assert path != str(encoder)
        return files.open_regular(path)

    monkeypatch.setattr(contents, "open_regular", watched)
    assert [finding.kind for finding in audit().findings if finding.path == str(encoder)] == ["altered"]


DEEP = b'{"a":' * 1000 + b"1" + b"}" * 1000
NO_JSON = [DEEP, b"[" * 200_000, b"NaN", b"[1e999]", b"[-Infinity]", b"[" + b"[]," * 5_000_000 + b"1]", b"\xff", b""]


@pytest.mark.parametrize("text", NO_JSON, ids=range(len(NO_JSON)))
def test_json_has_bounds(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"nested|finite|values|decode|Expecting"):
        parse_json(text)


def test_json_within_bounds_is_read() -> None:
    for value in ([], {"a": [1, 2.5, None, "é", {"b": "[[{{"}]}, "[" * 500, [[[]] * 9] * 50):
        assert parse_json(json.dumps(value)) == value == parse_json(json.dumps(value).encode())


def test_a_plain_file_within_bounds_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert read_bounded(tmp_path / "a", 3) == b"abc"
    with pytest.raises(OSError, match="larger than 2 bytes") as caught:
        read_bounded(tmp_path / "a", 2)
    assert caught.value.filename == str(tmp_path / "a")


@pytest.mark.parametrize("text", NO_JSON[:5], ids=range(5))
@pytest.mark.parametrize(
    ("path", "words"),
    [
        (run_dir(RUN) / "record.json", ["trace", RUN]),
        (run_dir(RUN) / "record.json", ["audit"]),
        (run_dir(RUN) / "record.json", ["diff", RUN, RUN]),
        (report_dir("grid") / "ids.json", ["trace", CELL]),
        (Path("mlflow/runs/grid.json"), ["trace", RUN]),
        (Path("results/raw/toy/manifest.json"), ["audit"]),
        (Path("data/raw/toy.dvc"), ["audit"]),
    ],
)
def test_nested_or_infinite_text_is_one_line(
    project: Path, path: Path, words: list[str], text: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    assert main(words) == (0 if path.parts[0] == "mlflow" else 2 if words[0] == "diff" or words[1:] == [CELL] else 1)
    assert len(capsys.readouterr().err.splitlines()) <= 1 or words == ["audit"]


@pytest.mark.parametrize("outs", ["{size: .inf}", "{md5: a.dir, size: .inf, nfiles: 1, path: x}", "[" * 3000])
def test_a_pin_of_odd_values_is_a_finding(project: Path, outs: str) -> None:
    Path("data/raw/toy.dvc").write_text(f"outs: [{outs}]", encoding="utf-8")
    assert ("altered", "data/raw/toy.dvc") in [(finding.kind, finding.path) for finding in audit().findings]
    with pytest.raises(UserError, match="not the DVC pin of one folder"):
        read_pin(Path("data/raw/toy.dvc"))


@pytest.mark.parametrize("part", ["inputs", "outputs"])
@pytest.mark.parametrize("path", ["../../x", "results/../../x", "results//x", "./x", "", "..", "a\0b", "\ud800"])
def test_a_path_of_a_record_cannot_lead_out(project: Path, part: str, path: str) -> None:
    record = parse_record((report_dir("grid") / "record.json").read_bytes())
    record[part][0]["path"] = path
    with pytest.raises(ValueError, match=r"leads out of the project|surrogate|utf-8"):
        parse_record(record_text(record).encode("utf-8", "surrogatepass"))


def test_an_output_is_never_absolute(project: Path) -> None:
    record = parse_record((report_dir("grid") / "record.json").read_bytes())
    record["outputs"][0]["path"] = "/etc/passwd"
    with pytest.raises(ValueError, match="leads out of the project"):
        parse_record(record_text(record).encode())


@pytest.mark.parametrize("name", ["../../x", "/{root}/x"])
def test_a_crate_writes_nothing_outside(project: Path, name: str) -> None:
    (project.parent / "x").write_text("x", encoding="utf-8")
    path = name.replace("{root}", str(project.parent).strip("/"))
    Path("workflow").mkdir()
    Path("Snakefile").write_text("", encoding="utf-8")
    outside = {"path": path, "bytes": 1, "sha256": sha256_file(project.parent / "x"), "record": None}
    forge(report_dir("grid"), lambda record: record["inputs"].append(outside))
    before = sorted(project.parent.rglob("*"))
    with pytest.raises(UserError, match=r"outside the project|leads out of the project"):
        write_crate("grid", Path("out"))
    assert sorted(project.parent.rglob("*")) == before


def test_a_chain_without_end_is_cut(project: Path) -> None:
    template = parse_record((run_dir(RUN) / "record.json").read_bytes())
    for number in range(300):
        folder = Path(f"results/x/{number}")
        folder.mkdir(parents=True)
        entry = {"path": f"results/x/{number + 1}/f", "bytes": 0, "sha256": "0", "record": "0"}
        record = template | {"inputs": [entry], "outputs": [entry | {"path": f"{folder}/f"}]}
        (folder / "record.json").write_text(record_text(record), encoding="utf-8")
    assert main(["trace", "results/x/0/f"]) == 1
    assert audit().exit_code == 1


def test_a_step_that_is_none_is_a_finding(project: Path) -> None:
    forge(report_dir("grid"), lambda record: record.update(step="magic", inputs=[]))
    assert "made by 'magic', which is no step of gessl" in [finding.what for finding in audit().findings]


@pytest.mark.parametrize("step", ["fetch", "report", "evaluate"])
def test_a_last_result_without_inputs_leads_to_no_pin(project: Path, step: str) -> None:
    forge(report_dir("grid"), lambda record: record.update(step=step, inputs=[]))
    assert "its inputs lead to no pin in data/raw" in [finding.what for finding in audit().findings]


def test_a_clock_that_is_set_changes_no_duration(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        year_of_now = 2030

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            cls.year_of_now += 1
            return datetime(cls.year_of_now, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(step_module, "datetime", Clock)
    out = Path("results/x")
    with Step("tasks", "x", out, inputs=[], config={}) as step:
        step.path("a").write_bytes(b"a")
    assert parse_record((out / "record.json").read_bytes())["seconds"] < 60


def test_impossible_times_are_noted(project: Path) -> None:
    assert not any("times that cannot be" in note for note in audit().notes)
    forge(report_dir("grid"), lambda record: record.update(started="2001-01-01T00:00:00+00:00"))
    assert any(note.startswith("1 of 6 records state times that cannot be") for note in audit().notes)
    forge(report_dir("grid"), lambda record: record.update(started="long ago"))
    assert any("times that cannot be" in note for note in audit().notes)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def write() -> None:
        with Step("tasks", "x", Path("results/x"), inputs=[], config={}), open("/dev/full", "wb", 0) as full:
            full.write(b"x")

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert caught.value.filename == "results/x/.staging"
    with pytest.raises(OSError, match="1024 written") as caught, files.named_errors(Path("results/y")):
        raise OSError("2000 requested and 1024 written")  # NumPy's word
    assert (caught.value.filename, caught.value.errno is not None) == ("results/y", True)
    assert not Path("results/x/record.json").exists()


METHODS = ["a" * 300, "/proc/self/cwd/evil", {"a": 1}, "../x", "x.y", "\0", 7]


@pytest.mark.parametrize("name", METHODS, ids=str)
def test_a_method_of_a_record_names_no_file_elsewhere(project: Path, name: Any) -> None:
    """The fingerprint reads the sources of a method: a record could name any file of the machine."""
    for suffix in (".so", ".py"):
        with open(f"evil{suffix}", "wb") as file:
            file.truncate(HUGE)
    forge(run_dir(RUN), lambda record: record["config"].update(method_name=name))
    assert ("stale", str(run_dir(RUN))) in [(finding.kind, finding.path) for finding in audit().findings]


def test_a_device_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening some is using them: a watchdog counts from then on, a tape is wound back."""

    def opened(*_: object) -> int:
        raise AssertionError("opened")

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(OSError, match="not a plain file"):
        files.open_regular("/dev/zero")


def test_a_file_of_many_names_is_read_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, read = run_dir(RUN) / "encoder.safetensors", []
    for number in range(9):
        os.link(encoder, f"results/{number}")

    def watched(path: str) -> Any:
        read.append(os.stat(path).st_ino)
        return files.open_regular(path)

    monkeypatch.setattr(contents, "open_regular", watched)
    names = [str(encoder), *(f"results/{number}" for number in range(9))]
    found = contents.read_contents(names)
    assert {found[name].sha256 for name in names} == {sha256_file(encoder)}
    assert len(read) == 1


@pytest.mark.parametrize("words", [["trace", CELL], ["trace", RUN], ["diff", RUN, RUN]])
def test_a_table_of_many_columns_takes_no_square_of_them(project: Path, words: list[str]) -> None:
    (scored(RUN) / "scores.csv").write_text("id" + ",b" * 200_000 + "\n" + "a\n" * 200_000, encoding="utf-8")
    assert main(words) in (0, 1, 2)
    with pytest.raises(ValueError, match="columns"):
        files.read_table(scored(RUN) / "scores.csv")


def _rehash(*folders: Path) -> None:
    """Have these records state what is there now, each after those that it was made from."""
    for folder in folders:

        def restate(record: dict[str, Any]) -> None:
            for entry in (*record["outputs"], *record["inputs"]):
                path = Path(entry["path"])
                entry |= {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
                maker = next((up for up in path.parents if (up / "record.json").is_file()), None)
                if "record" in entry and entry["record"] and maker:
                    entry["record"] = parse_record((maker / "record.json").read_bytes())["id"]

        forge(folder, restate)


def test_a_score_with_all_hashes_made_anew_is_held_against_its_outcomes(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = scored(RUN) / "scores.csv"
    assert audit().ok and main(["trace", CELL]) == 0
    table.write_text(table.read_text(encoding="utf-8").replace("91.25", "99.25"), encoding="utf-8")
    _rehash(scored(RUN), report_dir("grid"))
    (finding,) = audit().findings
    assert (finding.kind, finding.path) == ("altered", str(table))
    assert "accuracy is 99.25, but its outcomes give 91.25" in finding.what
    capsys.readouterr()
    assert main(["trace", CELL]) == 1
    assert "accuracy is 99.25, but its outcomes give 91.25" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x05\x06" + bytes(18)])
def test_outcomes_that_are_none_are_a_finding(project: Path, content: bytes) -> None:
    (scored(RUN) / "outcomes.npz").write_bytes(content)
    _rehash(scored(RUN), report_dir("grid"))
    (finding,) = audit().findings
    assert (finding.kind, Path(finding.path).parent) in [(kind, scored(RUN)) for kind in ("altered", "unverifiable")]


@pytest.mark.parametrize("path", [run_dir(RUN) / "encoder.safetensors", scored(RUN) / "scores.csv"], ids=str)
def test_a_diff_says_nothing_of_what_is_not_as_recorded(
    project: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", RUN, RUN]) == 0
    path.write_text(path.read_text(encoding="utf-8").replace("91.25", "99.25").replace("w", "v"), encoding="utf-8")
    capsys.readouterr()
    assert main(["diff", RUN, RUN]) == 1
    told = capsys.readouterr().out
    assert f"not as recorded, so not compared: {path}" in told
    assert "99.25" not in told and "files: the same bits" not in told


@pytest.mark.parametrize("path", [run_dir(RUN) / "encoder.safetensors", Path("data/raw/toy/images.bin")], ids=str)
def test_a_crate_names_no_content_that_is_not_there(project: Path, path: Path) -> None:
    Path("Snakefile").write_text("", encoding="utf-8")
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(UserError, match="not the file that its record names"):
        write_crate("grid", Path("out"))
    path.unlink()  # bulky files may have been left elsewhere
    assert write_crate("grid", Path("out")) == 6
