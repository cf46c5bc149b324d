import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_grid import PLAN, VERSION, evaluate, finish, line, train, write_report

from gessl import tracking
from gessl.audit.trace import lineage_tree
from gessl.errors import UserError
from gessl.layout import run_dir, scores_dir, work_dir
from gessl.records.record import read_record
from gessl.tables.scores import COLUMNS
from gessl.tracking import TrackingPlan, follow, rebuild, store, sync, values
from gessl.tracking.store import open_store, tracking_uri


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store; making one costs ten seconds."""
    root, before = tmp_path_factory.mktemp("store"), Path.cwd()
    os.chdir(root)
    try:
        open_store(tracking_uri())
    finally:
        os.chdir(before)
    return root / "mlflow/mlflow.db"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def embedded(template: Path, _here: None) -> None:
    Path("mlflow").mkdir()
    shutil.copy(template, "mlflow/mlflow.db")


def _runs() -> dict[str, Any]:
    client = open_store(tracking_uri())
    experiment = client.get_experiment_by_name("grid")
    assert experiment is not None
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def _curve(run: str, key: str = "loss") -> list[tuple[int, float]]:
    history = open_store(tracking_uri()).get_metric_history(_runs()[run].info.run_id, key)
    return [(point.step, point.value) for point in history]


def _losses(steps: int) -> list[tuple[int, float]]:
    return [(step, 1 / step) for step in range(1, steps + 1)]


def _artifacts(run: str) -> set[str]:
    return {file.path for file in open_store(tracking_uri()).list_artifacts(_runs()[run].info.run_id)}


def _content() -> dict[str, Any]:
    """Everything in the mirror that comes from the files: not MLflow's random ids, nor when it was mirrored."""
    found = {}
    for name, run in _runs().items():
        tags = {key: value for key, value in run.data.tags.items() if key.startswith("gessl") and key != "gessl.tree"}
        curves = {key: _curve(name, key) for key in run.data.metrics}
        inputs = [(data.dataset.name, data.dataset.digest) for data in run.inputs.dataset_inputs]
        found[name] = (run.info.status, tags, run.data.params, curves, inputs, _artifacts(name))
    return found


@pytest.mark.usefixtures("embedded")
def test_curves_appear_while_training_and_every_point_once() -> None:
    train("r0", range(1, 4))
    assert str(sync(PLAN)) == f"{tracking_uri()}: 1 runs, 0 finished, 3 new points"
    assert _curve("r0") == _losses(3)
    assert _runs()["r0"].info.status == "RUNNING"
    with open(work_dir("r0") / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(line(4) + line(5)[:-9])
    assert sync(PLAN).points == 1
    with open(work_dir("r0") / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(line(5)[-9:])
    assert sync(PLAN).points == 1
    assert sync(PLAN).points == 0
    assert _curve("r0") == _losses(5)
    assert _curve("r0", "kl") == [(step, 2.0 * step) for step in range(1, 6)]


@pytest.mark.usefixtures("embedded")
def test_an_encoder_from_elsewhere_has_its_scores_alone() -> None:
    finish("r0")
    plan = TrackingPlan("grid", ("r0", "theirs-s0-1"))
    assert sync(plan).runs == 1, "nothing to show of it yet"
    evaluate("theirs-s0-1", trained=False)
    assert str(sync(plan)) == str(sync(plan)), "the second time changes nothing"
    found = _runs()
    parent, child = found["theirs-s0-1"], found["theirs-s0-1 on toy"]
    assert (parent.info.status, parent.data.tags["gessl.kind"]) == ("FINISHED", "encoder")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.metrics


@pytest.mark.usefixtures("embedded")
def test_records_pins_and_runs_lead_to_each_other() -> None:
    finish("r0")
    evaluate("r0")
    train("r1", range(1, 3))
    sync(PLAN)
    links = json.loads(Path("mlflow/runs/grid.json").read_text(encoding="utf-8"))
    by_record = {run.data.tags["gessl.record"]: run.info.run_id for name, run in _runs().items() if name != "r1"}
    scores = scores_dir("r0", "toy")
    records = [read_record(folder) for folder in (run_dir("r0"), scores)]
    parts = [read_record(scores / stem) for stem in ("linear__wmse_v1", "few__psco")]
    nested = _runs()["r0 on toy"].info.run_id
    assert links["store"] == tracking_uri()
    assert links["runs"] == by_record | {record["id"]: nested for record in parts if record}
    assert {record["id"] for record in records if record} == set(by_record)
    for record in (*records, *parts):
        assert record is not None
        facts = lineage_tree(record["id"])["facts"]
        assert facts["MLflow run"] == links["runs"][record["id"]]
    (found,) = open_store(tracking_uri()).search_runs(
        [links["experiment"]], filter_string=f"tags.`gessl.data_version` = '{VERSION}'"
    )
    assert found.info.run_id == _runs()["r0"].info.run_id
    (dataset,) = [item.dataset for item in found.inputs.dataset_inputs]
    assert json.loads(dataset.source) == {"pin": "data/raw/toy.dvc", "data_version": VERSION}
    finish("r0", lr=0.2)
    assert "MLflow run" not in lineage_tree("r0")["facts"]
    sync(PLAN)
    assert lineage_tree("r0")["facts"]["MLflow run"] == _runs()["r0"].info.run_id


@pytest.mark.usefixtures("embedded")
def test_killed_and_resumed_training_misses_and_repeats_nothing() -> None:
    train("r0", range(1, 8))
    sync(PLAN, stopped=True)
    assert _runs()["r0"].info.status == "KILLED"
    (work_dir("r0") / "metrics.jsonl").unlink()
    train("r0", range(1, 4))  # back to its checkpoint
    sync(PLAN)
    assert _runs()["r0"].info.status == "RUNNING"
    train("r0", range(4, 10))
    sync(PLAN)
    assert _curve("r0") == _losses(9)
    finish("r0", steps=11)
    sync(PLAN)
    assert _curve("r0") == _losses(11)
    assert _runs()["r0"].info.status == "FINISHED"


@pytest.mark.usefixtures("embedded")
def test_point_told_twice_is_one_point() -> None:
    """The store may die between taking points and noting that it has them."""
    train("r0", range(1, 4))
    sync(PLAN)
    open_store(tracking_uri()).set_tag(_runs()["r0"].info.run_id, "gessl.step", "0")
    sync(PLAN)
    assert _curve("r0") == _losses(3)


@pytest.mark.usefixtures("embedded")
def test_failed_run_is_shown_as_failed() -> None:
    train("r0", range(1, 3))
    (work_dir("r0") / "failed.json").write_text("{}", encoding="utf-8")
    sync(PLAN)
    assert _runs()["r0"].info.status == "FAILED"


@pytest.mark.usefixtures("embedded")
def test_finished_run_has_settings_data_artifacts_and_scores() -> None:
    finish("r0")
    evaluate("r0")
    write_report()
    assert sync(PLAN).finished == 1
    runs, record = _runs(), read_record(run_dir("r0"))
    assert record is not None
    run = runs["r0"]
    assert run.data.params == {
        "method": "simclr", "train.lr": "0.1", "train.betas": "[0.9, 0.99]", "train.clip": "null",
    }  # fmt: skip
    tags = run.data.tags
    assert tags["gessl.record"] == record["id"]
    assert tags["gessl.data_version"] == VERSION
    assert tags["gessl.encoder"] == "results/runs/r0/encoder.safetensors"
    assert tags["gessl.commit"] == (record["code"]["commit"] or "none")
    (dataset,) = [item.dataset for item in run.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest) == ("toy", VERSION)
    assert _artifacts("r0") == {"config.json", "record.json", "encoder.safetensors"}
    nested = runs["r0 on toy"]
    assert nested.data.tags["mlflow.parentRunId"] == run.info.run_id
    assert nested.data.metrics == {"linear/wmse-v1/all/top-1 pct": 91.25, "few_shot/psco/5w1s/acc": 77.5}
    assert _artifacts("r0 on toy") == {"linear__wmse_v1", "few__psco", "record.json"}
    assert _artifacts("grid report") == {"sigma-report.html", "record.json"}
    assert Path("mlflow/artifacts/grid").is_dir()


@pytest.mark.usefixtures("embedded")
def test_large_encoder_is_named_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gessl.tracking.mirror.SMALL", 3)
    finish("r0")
    sync(PLAN)
    assert _artifacts("r0") == {"config.json", "record.json"}
    assert "gessl.encoder_sha256" in _runs()["r0"].data.tags


@pytest.mark.usefixtures("embedded")
def test_second_pass_changes_nothing_and_a_new_run_joins() -> None:
    finish("r0")
    evaluate("r0")
    sync(PLAN)
    before = _content()
    sync(PLAN)
    assert _content() == before
    train("r1", range(1, 3))
    sync(PLAN)
    assert _content() == before | {"r1": _content()["r1"]}


@pytest.mark.usefixtures("embedded")
def test_results_made_again_replace_the_old_ones() -> None:
    finish("r0")
    evaluate("r0")
    sync(PLAN)
    shutil.rmtree(run_dir("r0"))
    finish("r0", steps=2, lr=0.5)
    evaluate("r0", value=50.0)
    sync(PLAN)
    assert len(_runs()) == 2
    assert _curve("r0") == _losses(2)
    assert _runs()["r0"].data.params["train.lr"] == "0.5"
    nested = _runs()["r0 on toy"]
    assert nested.data.metrics["linear/wmse-v1/all/top-1 pct"] == 50.0
    assert nested.data.tags["mlflow.parentRunId"] == _runs()["r0"].info.run_id


@pytest.mark.usefixtures("embedded")
def test_broken_record_is_named_after_the_others_are_mirrored() -> None:
    finish("r0")
    finish("r1")
    (run_dir("r0") / "record.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"results/runs/r0/record\.json: broken"):
        sync(PLAN)
    assert set(_runs()) == {"r1"}


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize(
    "path", [scores_dir("r0", "toy") / "linear__wmse_v1/scores.csv", run_dir("r0") / "metrics.jsonl"], ids=str
)
def test_what_is_not_as_recorded_bears_no_records_id_in_the_mirror(path: Path) -> None:
    finish("r0")
    evaluate("r0")
    path.write_bytes(path.read_bytes().replace(b"5", b"7"))
    with pytest.raises(UserError, match=f"{path.name}: altered since it was made, so it is not mirrored"):
        sync(PLAN)


@pytest.mark.usefixtures("embedded")
def test_deleted_experiment_comes_back() -> None:
    finish("r0")
    sync(PLAN)
    client = open_store(tracking_uri())
    client.delete_experiment(client.get_experiment_by_name("grid").experiment_id)
    sync(PLAN)
    assert set(_runs()) == {"r0"}


def test_deleted_store_is_made_again_with_the_same_content(
    embedded: None, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_create", lambda database: shutil.copy(template, database))
    finish("r0")
    evaluate("r0")
    write_report()
    sync(PLAN)
    before = _content()
    shutil.rmtree("mlflow")
    sync(PLAN)
    assert _content() == before
    Path("mlflow/mlflow.db").write_bytes(b"")  # what SQLite leaves when it opens a deleted file
    sync(PLAN)
    assert _content() == before
    assert rebuild(PLAN).finished == 1
    assert _content() == before


def test_damaged_store_is_one_line_and_rebuild_mends_it(
    embedded: None, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_create", lambda database: shutil.copy(template, database))
    finish("r0")
    Path("mlflow/mlflow.db").write_bytes(b"no database at all, " * 1000)
    with pytest.raises(UserError, match="cannot mirror") as caught:
        sync(PLAN)
    assert "\n" not in str(caught.value)
    assert rebuild(PLAN).finished == 1


def test_new_store_is_whole_and_silent(capfd: pytest.CaptureFixture[str], template: Path) -> None:
    assert {path.name for path in template.parent.iterdir()} == {"mlflow.db"}
    assert capfd.readouterr().err == ""


def test_rebuild_refuses_a_store_that_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@localhost:1/x")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI: http://localhost:1/x is not ours") as caught:
        rebuild(PLAN)
    assert "secret" not in str(caught.value)


TRAIN = """
import json, pathlib, sys, time
work = pathlib.Path("work/r0"); work.mkdir(parents=True)
for step in (1, 2, 3):
    with open(work / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "seconds": step / 4, "loss": 1 / step, "kl": 2.0 * step}) + "\\n")
    time.sleep(0.3)
sys.exit(7)
"""


@pytest.mark.usefixtures("embedded")
def test_follow_mirrors_while_the_command_runs_and_returns_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    new: list[int] = []
    original = tracking.sync

    def count(plan: TrackingPlan, **options: bool) -> Any:
        summary = original(plan, **options)
        new.append(summary.points)
        return summary

    monkeypatch.setattr(tracking, "sync", count)
    monkeypatch.setattr("gessl.tracking.watched.SHARE", 1.0)
    assert follow([PLAN], [sys.executable, "-c", TRAIN], interval=0.05) == 7
    assert sum(new) == 3
    assert len(new) >= 2
    assert _curve("r0") == _losses(3)
    assert _runs()["r0"].info.status == "KILLED"


@pytest.mark.parametrize(("code", "expected"), [("0", 0), ("3", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_follow_returns_the_exit_code(monkeypatch: pytest.MonkeyPatch, code: str, expected: int) -> None:
    monkeypatch.setattr(tracking, "sync", lambda plan, stopped: None)
    assert follow([PLAN], [sys.executable, "-c", f"import os, sys; sys.exit({code})"]) == expected


def test_command_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(UserError, match="no-such-command: cannot be started"):
        follow([PLAN], ["no-such-command"])


def test_unreachable_server_is_one_warning(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    train("r0", range(1, 3))
    command = [sys.executable, "-c", "import time; time.sleep(0.5); raise SystemExit(5)"]
    assert follow([PLAN], command, interval=0.1) == 5
    (warning,) = capfd.readouterr().err.splitlines()
    assert warning.startswith(f"warning: tracking: http://127.0.0.1:{port}: cannot mirror (")
    assert "secret" not in warning


FOLLOW = """
import sys
from gessl import tracking
tracking.sync = lambda plan, stopped: None
sys.exit(tracking.follow([tracking.TrackingPlan("grid", ())], [sys.executable, "-u", "-c", sys.argv[1]]))
"""
CHILD = """
import os, signal, sys, time
def end(number, frame):
    print("got", number, flush=True)
    sys.exit(40 + number)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, end)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_command_once(number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", FOLLOW, CHILD], stdout=subprocess.PIPE, encoding="utf-8", start_new_session=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    time.sleep(0.1)
    os.killpg(parent.pid, number)  # as a terminal does: to the whole group of the parent
    assert parent.stdout.read() == f"got {int(number)}\n"
    assert parent.wait() == 40 + number


@given(st.text(max_size=300))
def test_names_are_ones_that_mlflow_takes(text: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    name = values.name(text)
    _validate_metric_name(name)
    _validate_param_name(name)
    assert len(name) <= 250


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(-1, 30))
def test_points_are_the_rising_steps_after_the_last(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], after: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "metrics.jsonl"
    path.write_text(
        "".join(json.dumps({"step": step, "loss": None}) + "\n" for step in steps) + '{"step": 99', encoding="utf-8"
    )
    found = [point.step for point in values.points(path, after)]
    assert found == sorted(set(found))
    assert all(step > after for step in found)
    if steps == sorted(steps):
        assert found == sorted({step for step in steps if step > after})


def test_scores_of_the_same_name_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    rows = [("a1", "m%", 1, "d"), ("b2", "mpct", 2, "d"), ("c3", "m%", 3, "elsewhere")]
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, restval="d")
        table.writeheader()
        for name, metric, value, target in rows:
            row = {"id": name, "metric": metric, "value": value, "target": target}
            table.writerow({"dataset": "d", "protocol": "p", "task": "t"} | row)
    assert values.scores(path) == {"p/t/mpct": 1.0, "p/t/mpct b2": 2.0, "elsewhere/p/t/mpct": 3.0}


@pytest.mark.parametrize(
    "uri",
    [
        *("sqlite:///m.db?timeout=5", "sqlite:////tmp/m.db?", "sqlite:///:memory:", "sqlite://", "sqlite:///"),
        *("sqlite:m.db", "sqlite+pysqlite:///m.db", "SQLite:///m.db", "sqlite:///file:m.db", "sqlite://host/m.db"),
    ],
)
def test_a_store_that_would_appear_elsewhere_is_refused(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    finish("r0")
    for mirror in (lambda: sync(PLAN), lambda: follow([PLAN], ["touch", "started"])):
        with pytest.raises(UserError, match=r"^MLFLOW_TRACKING_URI: .*named by the path of its file alone"):
            mirror()
    assert not Path("started").exists() and not Path("mlflow").exists()


def test_the_embedded_store_lies_in_its_project_whatever_its_folder_is_called(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "it's 100%25 #1 & $x ü"
    (odd / "mlflow").mkdir(parents=True)
    shutil.copy(template, odd / "mlflow")
    monkeypatch.chdir(odd)
    finish("r0")
    sync(PLAN)
    assert (odd / "mlflow/mlflow.db").is_file() and list(tmp_path.iterdir()) == [odd]
    assert list(_runs()) == ["r0"]
    rebuild(PLAN)
    assert (odd / "mlflow/replaced-1/mlflow.db").is_file(), "what somebody noted there is not lost"
    assert list(_runs()) == ["r0"]
    monkeypatch.chdir(odd.rename(tmp_path / "why?"))
    with pytest.raises(
        UserError, match=r"why\?/mlflow: no place for a SQLite store.* may hold no '\?'; rename the folder"
    ):
        sync(PLAN)
