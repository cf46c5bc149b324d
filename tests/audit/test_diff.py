import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from gessl.audit import repository
from gessl.audit.compare import ABSENT
from gessl.audit.diff import diff, format_diff
from gessl.cli import main
from gessl.errors import UserError
from gessl.files import sha256_file
from gessl.layout import data_dir, pin, run_dir
from gessl.records.step import Step
from tests.support.repositories import commit, forge, write
from tests.support.toy_project import RUN, SCORES_CSV, make_again, make_data, make_raw, scored

ONE, TWO = "toy-simclr-s0-11111111", "toy-simclr+gessl-s1-22222222"
Weights = dict[str, NDArray[np.float32]]
GESSL = {"tasks": 2, "inner_lr": 0.05}


def make(run: str, config: dict[str, Any], seed: int, weights: Weights, scores: str, data: str = "toy") -> None:
    inputs = [data_dir(data) / "images.npy"]
    with Step("pretrain", run, run_dir(run), inputs=inputs, config=config, seed=seed) as step:
        save_file(weights, step.path("encoder.safetensors"))
        step.path("metrics.jsonl").write_text(json.dumps({"loss": 1.5, "seconds": seed}) + "\n", encoding="utf-8")
    with Step("evaluate", run, scored(run), inputs=[run_dir(run) / "encoder.safetensors"], config={}) as step:
        step.path("scores.csv").write_text(scores, encoding="utf-8")


@pytest.fixture
def weights(project: Path) -> list[Weights]:
    """Of two runs, which are there, with scores."""
    rng = np.random.default_rng(0)
    found = [{name: rng.normal(size=(4, 3)).astype(np.float32) for name in "abcdefg"} for _ in range(2)]
    found[1]["c"] = found[0]["c"]
    one = SCORES_CSV.replace(RUN, ONE)
    two = SCORES_CSV.replace(RUN, TWO).replace("91.25", "94.5").replace("88.1,93.9", "94,96").splitlines(True)
    make(ONE, {"train": {"lr": 0.1, "steps": 2}, "gessl": None}, 0, found[0], one)
    make(TWO, {"train": {"lr": 0.3, "steps": 2}, "gessl": GESSL}, 1, found[1], "".join(two[:2]))
    return found


def test_settings_and_results_that_differ_are_told(weights: list[Weights]) -> None:
    found = diff(ONE, TWO)
    assert found["config"] == {
        "train.lr": (0.1, 0.3),
        "gessl": (None, ABSENT),
        "gessl.tasks": (ABSENT, 2),
        "gessl.inner_lr": (ABSENT, 0.05),
        "seed": (0, 1),
    }
    assert (found["data"], found["code"], found["environment"], found["packages"]) == ({}, {}, {}, {})
    linear, knn = found["scores"]
    assert (linear["values"], linear["difference"], linear["overlap"]) == ([91.25, 94.5], 3.25, False)
    assert (knn["values"], knn["difference"], knn["overlap"]) == ([90.5, None], None, None)
    gaps = {gap.part: gap for gap in found["files"]["encoder.safetensors"]}
    assert set(gaps) == set("abdefg")
    for name, gap in gaps.items():
        far = np.abs(weights[0][name].astype(np.float64) - weights[1][name].astype(np.float64))
        assert gap.max_difference == far.max()
    assert found["files"]["metrics.jsonl"] == ()  # measured times


def test_people_are_told_the_worst_first_and_machines_all(
    weights: list[Weights], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", ONE, TWO]) == 0
    text = capsys.readouterr().out
    worst = max("abdefg", key=lambda name: float(np.abs(weights[0][name] - weights[1][name]).max()))
    lines = text.splitlines()
    start = lines.index("  encoder.safetensors: 6 parts differ, the furthest apart (--json: all):")
    assert lines[start + 1].startswith(f"    {worst} float32 [4, 3]: 12 of 12 differ, by at most ")
    assert "  metrics.jsonl: only measured times differ" in lines
    assert "  train.lr        0.1      ->  0.3" in lines
    assert "data: the same" in lines
    scores = "\n".join(" ".join(line.split()) for line in lines)
    assert "linear/wmse-v1 all accuracy, % 91.25 94.5 +3.25 apart" in scores
    assert main(["diff", ONE, TWO, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["config"]["gessl.tasks"] == {"second": 2}
    assert len(found["files"]["encoder.safetensors"]) == 6


def test_a_run_does_not_differ_from_itself(weights: list[Weights]) -> None:
    text = format_diff(diff(ONE, str(run_dir(ONE))))
    assert text.count("the same") == 6
    assert "->" not in text.split("\n", 1)[1]


def test_data_are_told_by_content_and_by_the_pins_behind_them(weights: list[Weights]) -> None:
    make_data("other", make_raw("other"))
    three = "other-simclr-s0-33333333"
    with Step("prepare", "other", data_dir("other"), inputs=[pin("other")], config={}) as step:
        step.path("images.npy").write_bytes(b"other")
    make(three, {}, 0, weights[0], SCORES_CSV, "other")
    data = diff(ONE, three)["data"]
    content = [sha256_file(data_dir(name) / "images.npy") for name in ("toy", "other")]
    assert data == {
        "data/images.npy": tuple(content),
        "data/raw/toy.dvc": (sha256_file(pin("toy")), ABSENT),
        "data/raw/other.dvc": (ABSENT, sha256_file(pin("other"))),
    }
    make_again(data_dir("toy"))
    assert diff(ONE, three)["data"] == data, "made again to the same bytes"


def test_code_is_told_file_by_file(weights: list[Weights], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "repository"
    write(home, {"gessl/a.py": "1\n2\n3\n", "gessl/gone.py": "x\n", "README.md": "hi\n"})
    monkeypatch.setattr(repository, "HOME", home)
    first = commit(home)
    (home / "gessl/gone.py").unlink()
    write(home, {"gessl/a.py": "1\n2\n4\n5\n", "gessl/new name.py": "\0", "README.md": "ho\n"})
    second = commit(home)
    for run, name, sources in ((ONE, first, "1" * 64), (TWO, second, "2" * 64)):
        code = {"commit": name, "dirty": None, "sources": sources, "fingerprint": "f" * 64}
        forge(run_dir(run), lambda record, code=code: record.update(code=code))
    found = diff(ONE, TWO)
    assert found["code"] == {"commit": (first, second), "sources": ("1" * 64, "2" * 64)}
    files = {file["path"]: (file["added"], file["removed"]) for file in found["sources"]}
    assert files == {"gessl/a.py": (2, 1), "gessl/gone.py": (0, 1), "gessl/new name.py": (None, None)}
    text = format_diff(found)
    assert "but what this step imports is the same" in text
    blob = hashlib.sha1(b"blob 8\0" + b"1\n2\n4\n5\n").hexdigest()  # as git hashes a file
    assert f"->  {blob[:12]}" in text
    for unknown in ("f" * 40, f"--output={tmp_path}/written"):
        forge(run_dir(TWO), lambda record, unknown=unknown: record["code"].update(commit=unknown))
        found = diff(ONE, TWO)
        assert found["sources"] is None
        assert "does not have both commits" in format_diff(found)
    assert not (tmp_path / "written").exists()


def test_packages_are_told_from_the_locks(
    weights: list[Weights], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, locks = tmp_path / "repository", ("numpy==2.1 \\\n  --hash=x\nold==1\n", "numpy==2.2 \\\n  --hash=y\n")
    monkeypatch.setattr(repository, "HOME", home)
    for run, text in zip((ONE, TWO), locks, strict=True):
        write(home, {"requirements.lock": text})
        name, lock = commit(home), hashlib.sha256(text.encode()).hexdigest()
        change = {"commit": name, "dirty": None, "sources": "s", "fingerprint": "f"}
        forge(run_dir(run), lambda r, c=change, k=lock: r.update(code=c, environment=r["environment"] | {"lock": k}))
    assert diff(ONE, TWO)["packages"] == {"numpy": ("2.1", "2.2"), "old": ("1", ABSENT)}
    forge(run_dir(TWO), lambda record: record["environment"].update(lock="0" * 64))
    found = diff(ONE, TWO)
    assert found["packages"] is None
    assert "one of the locks is not at hand" in format_diff(found)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("nothing", "nothing: no such run"),
        ("ffffffff", "ffffffff: id of 0 records"),
        ("results/scores/toy-simclr-s0-11111111/toy/probes__v1", "of step evaluate; give two of the same step"),
        ("results/none", "results/none: no lineage record claims it"),
    ],
)
def test_bad_input_is_one_line(
    weights: list[Weights], second: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=message):
        diff(ONE, second)
    assert main(["diff", ONE, second]) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert len(out.err.splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"id\naaaa\n",
        SCORES_CSV.replace("91.25", "high").encode(),
        SCORES_CSV.replace("88.1", "low").encode(),
        SCORES_CSV.replace(",93.9,test,h,last,V", "").encode(),
        b"\xff\0" * 99,
        b"id\n" + b'"' + b"x" * 200_000,
    ],
)
def test_a_score_table_that_is_none_any_more_is_one_line(
    weights: list[Weights], content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = scored(TWO) / "scores.csv"
    path.write_bytes(content)
    facts = {"path": str(path), "bytes": len(content), "sha256": sha256_file(path)}
    forge(path.parent, lambda record: record.update(outputs=[facts]))
    assert main(["diff", ONE, TWO]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gessl: {scored(TWO)}/scores.csv: altered, no score table (")


def test_a_file_that_is_gone_is_told(weights: list[Weights]) -> None:
    (run_dir(TWO) / "encoder.safetensors").unlink()
    found = diff(ONE, TWO)
    assert found["files"]["encoder.safetensors"] is None
    assert "encoder.safetensors: one is not there" in format_diff(found)
