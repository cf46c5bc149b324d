"""Replays of real steps, in a repository of their own: what holds, what was tampered with, what cannot be had again."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from gessl.audit import environments, rebuild
from gessl.audit.replay import replay
from gessl.audit.repository import Scratch
from gessl.cli import main
from gessl.errors import UserError
from gessl.evaluation.step import score_dir
from gessl.files import sha256_file
from gessl.grid.experiment import Experiment
from gessl.layout import run_dir, tasks_dir
from gessl.records.record import parse_record
from tests.conftest import ROOT, SMALL, copy_project
from tests.support.repositories import commit, forge, git
from tests.support.toy_project import RUN, drawn

TASKS = tasks_dir("digits", 0) / "fewshot__proto_v1"
TINY = SMALL | {
    "seeds": [0],
    "recipe": {"train": {"steps": 3, "batch": 32, "warmup": 1, "lr": 0.003}},
    "variants": {"base": {}},
    "comparisons": [],
    "evaluation": ["knn/5nn-euclid", {"protocol": "fewshot/proto-v1", "episodes": 21}],
}


def gessl(*words: str) -> subprocess.CompletedProcess[str]:
    """`gessl` of the repository in the working directory, not of this one."""
    command = [sys.executable, "-m", "gessl", *words]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", env=os.environ | {"PYTHONPATH": str(Path.cwd())}
    )


def done(*words: str) -> None:
    result = gessl(*words)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def finished(prepared_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository with one run and its scores, made by the committed code; left as it was by each test."""
    home, before = copy_project(tmp_path_factory.mktemp("replay")), Path.cwd()
    shutil.copytree(ROOT / "gessl", home / "gessl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".gitignore", home)
    (home / "config/config.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    git(home, "init", "--quiet")
    commit(home)
    shutil.copytree(prepared_template / "results", home / "results")
    os.chdir(home)
    try:
        done("tasks", "digits", "0")
        done("pretrain", run_id())
        done("evaluate", run_id())
        yield home
    finally:
        os.chdir(before)


@pytest.fixture
def home(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The repository as the working directory; replays must leave nothing anywhere."""
    scratch, kept = tmp_path / "scratch", tmp_path / "results"
    scratch.mkdir()
    shutil.copytree(finished / "results", kept)
    head = git(finished, "rev-parse", "HEAD")
    monkeypatch.chdir(finished)
    monkeypatch.setenv("TMPDIR", str(scratch))
    yield finished
    assert list(scratch.iterdir()) == []
    assert len(git(finished, "worktree", "list").splitlines()) == 1
    git(finished, "reset", "--quiet", "--hard", head)
    shutil.rmtree("results")
    shutil.copytree(kept, "results")


def run_id() -> str:
    return Experiment.load(Path("config/config.yaml")).runs()[0].id


def test_the_same_code_gives_the_same_bits(home: Path) -> None:
    run = run_id()
    weights = sha256_file(run_dir(run) / "encoder.safetensors")
    state = git(home, "status", "--porcelain")
    replayed = gessl("replay", run)
    assert replayed.returncode == 0, replayed.stderr
    first, second, *lines = replayed.stdout.splitlines()
    assert first.startswith(f"replay passed: pretrain {run} ")
    assert first.endswith("5 of 5 outputs have the same bits, measured times aside")
    assert second.startswith(f"with the code of commit {git(home, 'rev-parse', 'HEAD')[:12]}, the present environment")
    assert second.endswith(" installed files are as they were installed")
    assert f"same: {run_dir(run)}/model.safetensors" in lines
    assert (
        f"same but for clocks: {run_dir(run)}/metrics.jsonl (not compared: data_wait, images_per_second, seconds)"
        in lines
    )
    assert "3/3" in replayed.stderr, "its progress is shown"
    assert sha256_file(run_dir(run) / "encoder.safetensors") == weights
    assert git(home, "status", "--porcelain") == state


def test_a_score_is_replayed_by_its_id(home: Path) -> None:
    run = run_id()
    table = score_dir(run, "digits", "knn/5nn-euclid") / "scores.csv"
    score = table.read_text(encoding="utf-8").splitlines()[1].split(",")[0]
    replayed = gessl("replay", score, "--json")
    assert replayed.returncode == 0, replayed.stderr
    outcome = json.loads(replayed.stdout)
    name = f"{run}/digits/knn__5nn_euclid"
    assert (outcome["ok"], outcome["step"], outcome["name"], outcome["machine"]) == (True, "evaluate", name, {})
    assert {output["status"] for output in outcome["outputs"]} == {"same"}
    assert len(outcome["outputs"]) == 3


@pytest.mark.slow
def test_a_report_is_replayed_by_its_cell_though_its_experiment_is_gone(home: Path) -> None:
    """Its page names every record that it comes from, back to the raw data."""
    shutil.copy("config/config.yaml", "plan.yaml")
    done("report", "--config", "plan.yaml")
    Path("plan.yaml").unlink()
    page = Path("results/report/small/sigma-report.html").read_text(encoding="utf-8")
    assert all(f"results/{step}/digits" in page for step in ("raw", "data"))
    cell = next(iter(json.loads(Path("results/report/small/ids.json").read_text(encoding="utf-8"))))
    replayed = gessl("replay", cell, "--json")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    outcome = json.loads(replayed.stdout)
    assert (outcome["ok"], outcome["step"], outcome["name"]) == (True, "report", "small")
    assert {output["status"] for output in outcome["outputs"]} == {"same"}


@pytest.mark.slow
def test_what_git_was_told_here_does_not_decide_which_code_is_replayed(home: Path) -> None:
    """Another commit in its place, a filter and a hook of a checkout: none is asked."""
    honest, source, ran = git(home, "rev-parse", "HEAD"), home / "gessl/rng.py", home / ".git/ran"
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace("(seed, ", "(seed + 1, "), encoding="utf-8")
    forged = commit(home)
    git(home, "reset", "--quiet", "--hard", honest)
    git(home, "replace", honest, forged)
    (home / ".git/info/attributes").write_text("* filter=evil\n", encoding="utf-8")
    git(home, "config", "filter.evil.smudge", f"touch {ran}; cat")
    (home / ".git/hooks/post-checkout").write_text(f"#!/bin/sh\ntouch {ran}\n", encoding="utf-8")
    (home / ".git/hooks/post-checkout").chmod(0o755)
    try:
        replayed = gessl("replay", str(TASKS))
    finally:
        git(home, "replace", "--delete", honest)
        git(home, "config", "--unset", "filter.evil.smudge")
        (home / ".git/info/attributes").unlink()
        (home / ".git/hooks/post-checkout").unlink()
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert f"with the code of commit {honest[:12]}, " in replayed.stdout
    assert not ran.exists()


def test_no_input_replaces_a_file_of_the_commit(home: Path) -> None:
    pin = Path("data/raw/digits.dvc")
    pin.write_text(pin.read_text(encoding="utf-8") + "# another\n", encoding="utf-8")
    forge(TASKS, lambda record: record["code"].update(commit=git(home, "rev-parse", "HEAD")))
    facts = {"path": str(pin), "bytes": pin.stat().st_size, "sha256": sha256_file(pin), "record": None}
    forge(TASKS, lambda record: record["inputs"].append(facts))
    replayed = gessl("replay", str(TASKS))
    assert replayed.returncode == 2
    assert (
        "data/raw/digits.dvc: the recorded code has another one; a replay takes that, and no other" in replayed.stderr
    )


def test_a_link_in_the_package_is_not_followed(home: Path) -> None:
    (home / "gessl/evil.py").symlink_to("/etc/passwd")
    other = commit(home)
    forge(TASKS, lambda record: record["code"].update(commit=other))
    replayed = gessl("replay", str(TASKS))
    assert replayed.returncode == 2
    assert f"gessl/evil.py: a link in commit {other[:12]}; " in replayed.stderr.splitlines()[-1]


@pytest.mark.slow
def test_an_output_that_was_altered_together_with_its_record_is_found(home: Path) -> None:
    true, name = dict(np.load(TASKS / "tasks.npz")), "5w1s/classes"
    forged = {key: array.copy() for key, array in true.items()}
    forged[name][0, :3] += [5, -2, 1]
    np.savez(TASKS / "tasks.npz", **forged)

    def rehash(record: dict[str, Any]) -> None:
        for output in record["outputs"]:
            output["sha256"] = sha256_file(Path(output["path"]))

    forge(TASKS, rehash)
    replayed = gessl("replay", str(TASKS))
    assert replayed.returncode == 1, replayed.stderr
    lines = replayed.stdout.splitlines()
    assert lines[0].startswith("replay FAILED: tasks digits-s0/fewshot__proto_v1 ")
    assert lines[0].endswith("1 of 2 outputs have the same bits")
    place = lines.index(f"differs: {TASKS}/tasks.npz")
    shape, dtype = list(true[name].shape), true[name].dtype
    assert lines[place + 1].startswith(
        f"  {name} {dtype} {shape}: 3 of {true[name].size} differ, by at most 5 at [0, 0]"
    )
    assert "processor, accelerator, threads and versions are the recorded ones" in lines


@pytest.mark.slow
def test_a_run_of_other_code_than_its_record_says_is_found(home: Path) -> None:
    run = run_id()
    honest = load_file(run_dir(run) / "encoder.safetensors")
    shutil.copytree(run_dir(run), home / "results/honest")
    source = home / "gessl/rng.py"
    text = source.read_text(encoding="utf-8").replace("(seed, ", "(seed + 1, ")
    assert text != source.read_text(encoding="utf-8")
    source.write_text(text, encoding="utf-8")
    commit(home)
    done("pretrain", run)
    other = load_file(run_dir(run) / "encoder.safetensors")
    new = parse_record((run_dir(run) / "record.json").read_bytes())["code"]
    shutil.rmtree(run_dir(run))
    shutil.move(home / "results/honest", run_dir(run))

    forge(run_dir(run), lambda record: record.update(code=new))
    replayed = gessl("replay", run, "--json")
    assert replayed.returncode == 1, replayed.stderr
    outputs = {Path(output["path"]).name: output for output in json.loads(replayed.stdout)["outputs"]}
    assert outputs["config.json"]["status"] == "same"
    assert outputs["encoder.safetensors"]["status"] == "differs"
    gaps = {gap["part"]: gap for gap in outputs["encoder.safetensors"]["gaps"]}
    assert set(gaps) == {name for name in honest if honest[name].tobytes() != other[name].tobytes()}
    for name, gap in gaps.items():
        far = np.abs(honest[name].astype(np.float64) - other[name].astype(np.float64))
        assert gap["max_difference"] == far.max()
        assert gap["differing"] == (honest[name] != other[name]).sum()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_replay_that_is_stopped_leaves_nothing(home: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "gessl", "replay", str(TASKS)]
    environment = os.environ | {"PYTHONPATH": str(home)}
    hears = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a shell's background jobs do not
    child = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True, preexec_fn=hears
    )
    assert child.stderr is not None
    assert "replaying tasks digits-s0" in child.stderr.readline()
    if number == signal.SIGINT:
        os.killpg(child.pid, number)  # as Ctrl-C does
    else:
        child.send_signal(number)
    assert child.wait(30) == 130
    child.stderr.close()
    with pytest.raises(ProcessLookupError):  # no step goes on alone
        for _ in range(100):
            os.killpg(child.pid, 0)
            time.sleep(0.1)


@pytest.mark.slow
def test_what_stands_in_for_the_recorded_code_and_environment_is_told(home: Path) -> None:
    """Present sources that are those of then; another environment, but only if that was asked for."""
    forge(TASKS, lambda record: record["code"].update(dirty="d" * 64))
    forge(TASKS, lambda record: record["environment"].update(lock=OTHER))
    replayed = gessl("replay", str(TASKS), "--here")
    assert replayed.returncode == 0, replayed.stderr
    told = replayed.stdout.splitlines()
    assert told[1].startswith("with the present sources, ")
    assert "NOT the recorded one (--here), " in told[1]
    assert f"  lock: recorded {OTHER}, now {sha256_file(home / 'requirements.lock')}" in told


def code(**changes: str | None) -> Callable[[dict[str, Any]], None]:
    return lambda record: record["code"].update({"commit": None, "dirty": None} | changes)


OTHER, RECORDED = "0" * 64, "f" * 40
REFUSED = {
    "nothing": (None, "nothing: no such run; give the id of a run"),
    "": (None, ": no such run"),
    "ffffffffffff": (None, "ffffffffffff: id of 0 records"),
    "results/none": (None, "results/none: no lineage record claims it"),
    "results/raw/toy": (None, "fetch toy: raw data come from their publishers"),
    "uncommitted": (code(commit=RECORDED, dirty="d", sources=OTHER), "made with uncommitted changes to commit fff"),
    "unknown": (code(commit=RECORDED, sources=OTHER), "this repository does not have its commit ffffffffffff"),
    "unversioned": (code(sources=OTHER), "made outside version control"),
    "lock": (lambda record: record["environment"].update(lock=OTHER), "requirements.lock: the recorded environment"),
    "settings": (code(), "its recorded settings are not those of its id"),
    "missing": (lambda _: Path("results/data/toy/card.json").unlink(), "results/data/toy/card.json: not there, but"),
    "altered": (
        lambda _: Path("results/data/toy/card.json").write_text("{}", encoding="utf-8"),
        "card.json: not the bytes any more",
    ),
    "outside": (lambda record: record["inputs"][0].update(path="/etc/passwd"), "/etc/passwd: input of .* from outside"),
    "broken": (lambda record: record.update(notes=[]), "record.json: broken lineage record"),
}


def names(path: str) -> Callable[[dict[str, Any]], None]:
    """A record that names one more input, which is there, with its true hash."""

    def change(record: dict[str, Any]) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("open('ran', 'w')\n", encoding="utf-8")
        facts = {"bytes": Path(path).stat().st_size, "sha256": sha256_file(Path(path))}
        record["inputs"].append({"path": path, "record": None, **facts})

    return change


REFUSED |= {
    path: (
        names(path),
        f"{re.escape(str(Path(path)))}: (no step reads such a file|input of .* from outside)|broken lineage record",
    )
    for path in (
        *("yaml.py", "./yaml.py", "sitecustomize.py", "usercustomize.py", "evil.pth", "torch/__init__.py"),
        *("gessl/rng.py", "gessl/tasks/draw/__init__.py", "gessl/__pycache__/rng.cpython-311.pyc", "replay.json"),
        *(
            "config/datasets/digits.yaml",
            "config/methods/simclr.yaml",
            "requirements.lock",
            "matplotlibrc",
            ".dvc/config",
        ),
        *("results/../yaml.py", "results/data/../../gessl/rng.py", "data/raw.dvc", "work/x.json", "work/a/b/c.json"),
    )
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_replayed_is_refused_in_one_line(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    (project / "config").mkdir()
    change, message = REFUSED[name]
    if change:
        forge(run_dir(RUN), code())  # present sources: no worktree of this repository
        forge(run_dir(RUN), change)
    assert main(["replay", RUN if change else name]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(message, err.splitlines()[-1])
    assert len(err.splitlines()) == 1
    assert list(scratch.iterdir()) == []
    assert not (project / "ran").exists()


@pytest.mark.parametrize(
    ("step", "name"),
    [
        *(("prepare", name) for name in ("--help", "-h", "../x", "a/b", "a\0b", "a b", "", "x" * 300)),
        ("tasks", "digits"),
        ("tasks", "digits-s-1"),
    ],
)
def test_a_name_is_no_option_and_no_path(tmp_path: Path, step: str, name: str) -> None:
    with pytest.raises(UserError, match="the step cannot be rebuilt"):
        rebuild._words({"step": step, "name": name, "config": {}}, Scratch(tmp_path, tmp_path))


def test_a_record_cannot_start_as_many_processes_as_it_likes(tmp_path: Path) -> None:
    record = {"name": "x", "environment": {}, "notes": {"processes": 10**6}}
    with pytest.raises(UserError, match="was shared by 1000000 processes; this machine has"):
        rebuild._run(record, ["false"], [], tmp_path)


@pytest.mark.parametrize("version", ["/tmp/evil.sh", "evil", "", "3", "4.1", "3.x", "3.11\n.1"])
def test_a_record_cannot_name_a_program_for_its_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    (tmp_path / "requirements.lock").write_text("numpy==1\n", encoding="utf-8")
    recorded = {"lock": sha256_file(tmp_path / "requirements.lock"), "python": version}
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setattr(environments.subprocess, "run", lambda *_, **__: pytest.fail("it was run"))
    with pytest.raises(UserError, match="no release of Python, but the record names it"):
        environments.interpreter_for(recorded, tmp_path, here=False)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda record: record["code"].update(fingerprint=OTHER), "sources"),
        (lambda record: record.update(seed=1), "settings"),
        (lambda record: record["config"].update(epochs=3), "settings"),
        (lambda record: record["inputs"][0].update(sha256=OTHER), "inputs"),
        (lambda record: record["inputs"].pop(), "inputs"),
    ],
)
def test_what_was_made_from_something_else_is_no_replay(
    project: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], object], what: str
) -> None:
    (project / "config").mkdir()
    out = drawn("toy")
    forge(out, code())

    def make(record: dict[str, Any], interpreter: str, words: list[str], tree: Path) -> None:
        shutil.copytree(out, tree / out)
        forge(tree / out, change)

    monkeypatch.setattr(rebuild, "_run", make)
    monkeypatch.setattr(rebuild, "_checked", lambda places, here: "not checked")
    with pytest.raises(UserError, match=f"the {what} of what was made again are not the recorded ones"):
        replay(str(out))


UV = """#!/bin/sh
echo "$@" >> {log}
[ $1 = venv ] && {{ for place; do :; done; mkdir -p $place/bin; ln -s {python} $place/bin/python; }}
[ $1 != {fails} ]
"""


@pytest.mark.parametrize("fails", ["nothing", "pip"])
def test_the_recorded_environment_is_built_once_from_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    uv, log, tree, cache = (tmp_path / name for name in ("uv", "log", "tree", "cache"))
    uv.write_text(UV.format(log=log, python=sys.executable, fails=fails), encoding="utf-8")
    uv.chmod(0o755)
    tree.mkdir()
    (tree / "requirements.lock").write_text("numpy==1\n", encoding="utf-8")
    (tmp_path / "requirements.lock").write_text("numpy==2\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(environments.shutil, "which", lambda *_, **__: str(uv))
    recorded = {"lock": sha256_file(tree / "requirements.lock"), "python": "3.11.4"}
    if fails == "pip":
        with pytest.raises(UserError, match="uv cannot build the recorded environment"):
            environments.interpreter_for(recorded, tree, here=False)
        assert list((cache / "gessl/environments").iterdir()) == []
        return
    for _ in range(2):
        python, told = environments.interpreter_for(recorded, tree, here=False)
        assert Path(python).samefile(sys.executable)
        assert python.startswith(str(cache))
        assert told.startswith("an environment built from the recorded lock")
    venv, sync = (line.split() for line in log.read_text(encoding="utf-8").splitlines())
    assert venv[0] == "venv"
    assert [sync[:2], sync[-2:]] == [["pip", "sync"], ["--require-hashes", str(tree / "requirements.lock")]]
