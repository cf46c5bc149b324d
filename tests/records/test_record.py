import hashlib
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from gessl.errors import UserError
from gessl.files import canonical_json, sha256_file
from gessl.records import record as record_module
from gessl.records import staging
from gessl.records import step as step_module
from gessl.records.record import describe_input, is_maker, parse_record, read_record, record_id
from gessl.records.step import Step
from tests.support.repositories import forge

OUT = Path("results/data/toy")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _make(out: Path = OUT, inputs: tuple[Path, ...] = (), **files: str) -> None:
    with Step("prepare", "toy", out, inputs=inputs, config={"k": 1}, seed=3) as step:
        for name, text in files.items():
            step.path(name.replace("__", "/")).write_text(text, encoding="utf-8")


def _names(folder: Path = OUT) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_outputs_and_record_appear_together() -> None:
    with Step("prepare", "toy", OUT, inputs=[], config={"size": (8, 8), 1: None}, seed=3) as step:
        step.path("a.txt").write_text("a", encoding="utf-8")
        step.path("sub/b.txt").write_text("bb", encoding="utf-8")
        step.notes["resumed"] = 2
        assert _names() & {"a.txt", "sub", "record.json"} == set()
    assert _names() == {"a.txt", "sub", "sub/b.txt", "record.json"}
    found = read_record(OUT)
    assert found is not None
    assert found["outputs"] == [
        {"path": f"results/data/toy/{name}", "bytes": size, "sha256": sha256_file(OUT / name)}
        for name, size in (("a.txt", 1), ("sub/b.txt", 2))
    ]
    assert (found["step"], found["name"], found["seed"]) == ("prepare", "toy", 3)
    peak = found["notes"].pop("peak_memory_mb")
    assert found["notes"] == {"resumed": 2}
    assert 10 < peak < 100_000
    found = read_record(OUT)
    assert found is not None
    assert found["config"] == {"size": [8, 8], "1": None}
    assert {"commit", "dirty", "sources", "rules", "fingerprint"} == set(found["code"])
    assert found["id"] == record_id(found)
    raw = json.loads((OUT / "record.json").read_bytes())
    assert raw["predicate"]["runDetails"]["metadata"].pop("invocationId") == found["id"]
    assert hashlib.sha256(canonical_json(raw).encode()).hexdigest() == found["id"]


def test_error_publishes_nothing_and_keeps_the_earlier_outputs() -> None:
    _make(a="old")
    before = {path: path.read_bytes() for path in OUT.iterdir()}

    def fail() -> None:
        with Step("prepare", "toy", OUT, inputs=[], config={}) as step:
            step.path("a").write_text("new", encoding="utf-8")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert {path: path.read_bytes() for path in OUT.iterdir()} == before


@pytest.mark.parametrize("notes", [float("nan"), object()])
def test_notes_that_are_no_json_publish_nothing(notes: object) -> None:
    _make(a="old")

    def note() -> None:
        with Step("prepare", "toy", OUT, inputs=[], config={}) as step:
            step.path("a").write_text("new", encoding="utf-8")
            step.notes["loss"] = notes

    with pytest.raises((ValueError, TypeError), match="JSON"):
        note()
    assert (OUT / "a").read_text(encoding="utf-8") == "old"
    assert read_record(OUT) is not None


@pytest.mark.parametrize("failing", ["replace", "record"])
def test_error_while_moving_leaves_no_half(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    _make(a="old", b="old")
    (OUT / "foreign").write_text("not ours", encoding="utf-8")
    replace, text = os.replace, staging.atomic_text

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "b":
            raise OSError(28, "No space left on device")
        replace(source, target)

    def fail(path: Path, content: str) -> None:
        raise OSError(28, "No space left on device")

    if failing == "replace":
        monkeypatch.setattr(staging.os, "replace", full)
    else:
        monkeypatch.setattr(staging, "atomic_text", fail)
    with pytest.raises(OSError, match="No space"):
        _make(a="new", b="new")
    assert _names() == {"foreign"}
    monkeypatch.setattr(staging.os, "replace", replace)
    monkeypatch.setattr(staging, "atomic_text", text)
    _make(a="new", b="new")
    assert (OUT / "b").read_text(encoding="utf-8") == "new"


def test_outputs_that_are_no_longer_made_go_but_nothing_foreign() -> None:
    _make(a="1", tables__x="1", tables__y="1", other__z="1")
    (OUT / "foreign").write_text("not ours", encoding="utf-8")
    _make(a="2", tables__x="2")
    assert _names() == {"a", "tables", "tables/x", "foreign", "record.json"}


def test_file_may_become_a_folder_and_back() -> None:
    _make(a="1")
    _make(a__b="2")
    assert (OUT / "a/b").read_text(encoding="utf-8") == "2"
    _make(a="3")
    assert (OUT / "a").read_text(encoding="utf-8") == "3"


def test_record_that_claims_files_elsewhere_removes_none_of_them() -> None:
    _make(a="1")
    outside = Path("results/data/other")
    outside.parent.mkdir(exist_ok=True)
    outside.write_text("keep", encoding="utf-8")
    path = OUT / "record.json"
    forged = parse_record(path.read_bytes())
    forged["outputs"] += [
        {"path": name, "bytes": 1, "sha256": "0"} for name in ("results/data/other", "results/data/toy/../other")
    ]
    forged["id"] = record_id(forged)
    path.write_text(record_module.record_text(forged), encoding="utf-8")
    _make(a="2")
    assert outside.read_text(encoding="utf-8") == "keep"


def _die(at: str) -> None:
    """Stop for good at a point in the middle of publishing."""

    def stop(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if at == "block":
        with Step("prepare", "toy", OUT, inputs=[], config={}) as step:
            step.path("a").write_text("half", encoding="utf-8")
            stop()
    if at == "record":
        staging.atomic_text = stop  # type: ignore[assignment]
    if at == "move":
        replace = os.replace
        staging.os.replace = lambda a, b: stop() if Path(b).name == "late" else replace(a, b)  # type: ignore[assignment]
    _make(early="half", late="half")


@pytest.mark.parametrize("at", ["block", "move", "record"])
def test_kill_leaves_no_record_and_the_next_attempt_clears_the_rest(at: str) -> None:
    _make(a="old", gone="old")
    process = multiprocessing.get_context("fork").Process(target=_die, args=(at,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    if at == "block":
        assert (OUT / "a").read_text(encoding="utf-8") == "old"
        assert read_record(OUT) is not None
    else:
        assert read_record(OUT) is None
        with pytest.raises(UserError, match="no lineage record claims it"):
            describe_input(OUT / "early")
    _make(a="new")
    assert _names() == {"a", "record.json"}


def _hold(started: Path) -> None:
    with Step("prepare", "toy", OUT, inputs=[], config={}):
        started.touch()
        time.sleep(60)


def test_two_processes_cannot_make_the_same_folder() -> None:
    started = Path("started")
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(started,))
    process.start()
    while not started.exists():
        time.sleep(0.01)
    with pytest.raises(UserError, match="results/data/toy: another process is making it"):
        _make(a="1")
    process.kill()
    process.join()
    _make(a="1")
    assert _names() == {"a", "record.json"}


def test_records_form_a_chain() -> None:
    raw = Path("data/raw/toy.dvc")
    raw.parent.mkdir(parents=True)
    raw.write_text("pin", encoding="utf-8")
    _make(OUT, (raw,), a="1", sub__b="2")
    made = read_record(OUT)
    assert made is not None
    assert made["inputs"] == [{"path": raw.as_posix(), "bytes": 3, "sha256": sha256_file(raw), "record": None}]
    child = Path("results/runs/r")
    _make(child, (OUT / "a", OUT / "sub/b", OUT / "a", Path.cwd() / OUT / "a"), c="3")
    found = read_record(child)
    assert found is not None
    assert [(entry["path"], entry["record"]) for entry in found["inputs"]] == [
        ("results/data/toy/a", made["id"]),
        ("results/data/toy/sub/b", made["id"]),
    ]


def test_a_record_names_the_earlier_ones_of_the_same_bytes() -> None:
    ids = []

    def earlier(**files: str) -> list[list[int]]:
        """Which of the records so far each output names, in the order of their names."""
        _make(OUT, **files)
        record = read_record(OUT)
        assert record is not None
        ids.append(record["id"])
        return [[ids.index(name) for name in output.get("earlier", [])] for output in record["outputs"]]

    assert earlier(a="1", b="2") == [[], []]
    assert earlier(a="1", b="2") == [[0], [0]]
    child = Path("results/runs/r")
    _make(child, (OUT / "a",), c="3")
    assert earlier(a="1", b="x") == [[0, 1], []]
    made, (entry,) = read_record(OUT), read_record(child)["inputs"]
    assert is_maker(made, entry) and describe_input(OUT / "a")["record"] == ids[2]
    assert not is_maker(made, entry | {"sha256": "0"}) and not is_maker(made, entry | {"record": "0"})
    assert earlier(a="y", b="x") == [[], [2]]
    assert not is_maker(read_record(OUT), entry)
    (OUT / "record.json").unlink()
    assert earlier(a="y", b="x") == [[], []], "who deletes a record has it forgotten"


@pytest.mark.parametrize("name", ["a", "sub/b"])
def test_altered_input_is_refused_in_one_line(name: str) -> None:
    _make(OUT, a="1", sub__b="2")
    (OUT / name).write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=f"results/data/toy/{name}: altered since it was made; ") as caught:
        _make(Path("results/runs/r"), (OUT / name,), c="3")
    assert "\n" not in str(caught.value)
    assert not Path("results/runs").exists()


@pytest.mark.parametrize(
    ("old", "new"), [('"seed": 3', '"seed": 4'), ("\n}", "\n }"), ('"invocationId"', '"di"'), ("{", "["), ("", "\xff")]
)
def test_altered_record_is_refused_in_one_line(old: str, new: str) -> None:
    _make(OUT, a="1")
    path = OUT / "record.json"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"results/data/toy/record\.json: broken lineage record") as caught:
        describe_input(OUT / "a")
    assert "\n" not in str(caught.value)


def test_missing_and_folder_inputs_are_refused() -> None:
    _make(OUT, a="1")
    with pytest.raises(UserError, match="results/data/none: no such file"):
        describe_input(Path("results/data/none"))
    with pytest.raises(UserError, match="results/data/toy: is a folder"):
        describe_input(OUT)


def test_input_that_changes_while_it_is_read_is_refused() -> None:
    source = Path("source")
    source.write_text("before", encoding="utf-8")

    def change() -> None:
        with Step("prepare", "toy", OUT, inputs=[source], config={}) as step:
            step.path("a").write_text("a", encoding="utf-8")
            source.write_text("during", encoding="utf-8")

    with pytest.raises(UserError, match="source: changed while prepare toy was reading it"):
        change()
    assert _names() == set()
    with Step("prepare", "toy", OUT, inputs=[source], config={}) as step:
        step.path("a").write_text("a", encoding="utf-8")
        source.unlink()
        source.write_text("during", encoding="utf-8")  # another file with the same bytes
    assert read_record(OUT) is not None


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "record.json", "", ".", ".staging/a"])
def test_output_names_stay_in_the_folder(name: str) -> None:
    with Step("prepare", "toy", OUT, inputs=[], config={}) as step, pytest.raises(ValueError, match="output name"):
        step.path(name)


def test_links_are_no_outputs() -> None:
    with (
        pytest.raises(ValueError, match="must be a plain file"),
        Step("prepare", "toy", OUT, inputs=[], config={}) as step,
    ):
        step.path("link").symlink_to("/etc/hostname")
    assert _names() == set()


def test_code_is_that_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with Step("prepare", "toy", OUT, inputs=[], config={}) as step:
        step.path("a").write_text("a", encoding="utf-8")
        monkeypatch.setattr(step_module, "code_state", lambda: {"commit": "edited meanwhile"})
    found = read_record(OUT)
    assert found is not None
    assert found["code"] != {"commit": "edited meanwhile"}


@pytest.mark.parametrize("program", ["/bin/gessl", "/site-packages/gessl/__main__.py"])
def test_command_is_the_users_words(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr("sys.argv", [program, "prepare", "toy"])
    _make(a="1")
    found = read_record(OUT)
    assert found is not None
    assert found["command"] == ["gessl", "prepare", "toy"]


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b"\xff", b'{"id": 3}', b"nul", b'{"id": "a", "outputs": [3]}', b"[" * 30, b"[" * 100_000],
)
def test_what_is_no_record_is_said_so(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message of json differs by case
        parse_record(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("code", {}),
        ("code", {"sources": 5}),
        ("code", {"sources": "a", "commit": 5}),
        ("code", {"sources": "a", "dirty": {}}),
        ("code", {"sources": "a", "fingerprint": 5}),
        ("environment", {"lock": 5}),
        ("environment", {"libraries": 7}),
        ("environment", {"libraries": None}),
        ("environment", {"processor": []}),
        ("environment", {"accelerator": 5}),
        ("config", {"train": 7}),
        ("config", {"train": {"steps": "7"}}),
        ("config", {"gessl": 7}),
        ("config", {"dataset": 7}),
        ("config", {"dataset": {"files": 7}}),
        ("config", {"dataset": {"files": [7]}}),
        ("config", {"protocols": [1, "a"]}),
        ("notes", {"resumed_from_step": "7"}),
        ("notes", {"processes": "7"}),
        ("command", [1]),
    ],
)
def test_what_lies_in_a_field_is_of_the_type_that_readers_rely_on(field: str, value: object) -> None:
    _make(a="1")
    forge(OUT, lambda found: found.update({field: value}))
    with pytest.raises(UserError, match=r"broken lineage record \(no valid field"):
        read_record(OUT)


def test_what_is_optional_in_a_record_may_lack() -> None:
    _make(a="1")
    forge(OUT, lambda found: found.update(code={"sources": "a"}, environment={}, config={}, notes={}))
    assert read_record(OUT) is not None


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"NaN", b"Infinity"])
def test_a_record_of_numbers_that_are_not_finite_is_none(number: bytes) -> None:
    _make(a="1")
    data = (OUT / "record.json").read_bytes().replace(b'"seed": 3', b'"seed": 3,"extra": ' + number)
    with pytest.raises(ValueError, match="no finite number"):
        parse_record(data)
