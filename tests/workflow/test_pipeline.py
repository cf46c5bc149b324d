"""The chain as its user runs it: Snakemake over the small experiment, then the auditor's verbs, then mischief."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gessl.cli import main
from gessl.grid.experiment import Experiment
from tests.conftest import ROOT, SMALL, copy_project

SNAKEMAKE = [sys.executable, "-m", "snakemake", "--profile", "workflow/profiles/local"]


def snakemake(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SNAKEMAKE, *words], capture_output=True, encoding="utf-8", timeout=500)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the whole workflow has run once."""
    project, before = copy_project(tmp_path_factory.mktemp("pipeline")), Path.cwd()
    os.chdir(project)
    try:
        done = snakemake()
    finally:
        os.chdir(before)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to do mischief in; time stamps are kept, so nothing looks new."""
    copy = shutil.copytree(finished, tmp_path / "project", copy_function=shutil.copy2)
    monkeypatch.chdir(copy)
    return copy


def test_every_cell_is_scored_and_the_audit_passes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cell in Experiment.load(Path("config/config.yaml")).runs():
        assert (project / "results/scores" / cell.id / "digits/record.json").is_file()
    assert json.loads((project / "logs/audit.json").read_text(encoding="utf-8"))["ok"] is True
    assert main(["audit"]) == 0
    assert "audit passed" in capsys.readouterr().out
    assert not list((project / "work").glob("digits-*")), "checkpoints of finished runs are gone"


def test_a_second_run_has_nothing_to_do_and_forced_audits_do_only_that(project: Path) -> None:
    again = snakemake()
    assert "Nothing to be done" in again.stdout + again.stderr
    dry = snakemake("--dry-run", "--forcerun", "audit")
    jobs = dict(re.findall(r"^(\w+)\s+(\d+)$", dry.stdout + dry.stderr, flags=re.M))
    assert jobs == {"audit": "1", "all": "1", "total": "2"}


def test_what_was_made_again_has_everything_behind_it_made_again(project: Path) -> None:
    dry = snakemake("--dry-run", "--forcerun", "prepare")
    jobs = dict(re.findall(r"^(\w+)[-\w+]*\s+(\d+)$", dry.stdout + dry.stderr, flags=re.M))
    assert jobs["prepare"] == "1"
    assert jobs["pretrain"] == "4"
    assert jobs["report"] == "1"


def test_every_number_of_the_report_can_be_traced_to_the_raw_data(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = re.search(r"md5: (\w+\.dir)", Path("data/raw/digits.dvc").read_text(encoding="utf-8"))
    assert version is not None
    ids = json.loads(Path("results/report/small/ids.json").read_text(encoding="utf-8"))
    page = Path("results/report/small/sigma-report.html").read_text(encoding="utf-8")
    for cell in (next(iter(ids)), list(ids)[-1]):
        assert cell in page
        assert main(["trace", cell]) == 0
        assert version.group(1) in capsys.readouterr().out
    assert main(["trace", "nonsense"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_altered_raw_byte_stops_the_next_run(project: Path) -> None:
    path = project / "data/raw/digits/digits.csv.gz"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    stopped = snakemake("--forcerun", "audit")
    assert stopped.returncode == 2
    line = [text for text in stopped.stderr.splitlines() if text.startswith("gessl:")]
    assert len(line) == 1
    assert "data/raw/digits/digits.csv.gz: was altered" in line[0]
    assert "move data/raw/digits/digits.csv.gz away and run `gessl fetch digits`" in line[0]
    os.utime(path, (0, 0))  # hidden from a look at the time stamps: the audit still sees it
    hidden = snakemake("--forcerun", "audit")
    assert hidden.returncode != 0
    assert "data/raw/digits/digits.csv.gz" in hidden.stdout + hidden.stderr


def test_one_flipped_byte_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted(Path("results").rglob("*.safetensors"))[:1] + sorted(Path("results").rglob("*.svg"))[:1]:
        whole = path.read_bytes()
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        assert main(["audit"]) == 1
        assert str(path) in capsys.readouterr().out
        path.write_bytes(whole)
    assert main(["audit"]) == 0


def test_a_grid_is_judged_by_what_it_is_made_of(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    staging = Path("results/runs/killed/.staging")
    staging.mkdir(parents=True)
    (staging / "lock").touch()
    shutil.copytree("results/report/small", "results/report/copied")
    done = snakemake("--forcerun", "audit")
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads(Path("logs/audit.json").read_text(encoding="utf-8"))
    assert (verdict["ok"], verdict["grids"]) == (True, ["small"])
    assert verdict["notes"][0].startswith("2 other results (1 of them half made: .staging) were not looked at")
    capsys.readouterr()
    assert main(["audit"]) == 1
    said = capsys.readouterr().out
    assert str(staging) in said and "results/report/copied/record.json" in said
    own = ["audit", "--config", "config/config.yaml"]
    assert main(own) == 0
    assert main([*own, "--signed", "signers"]) == 2
    images = Path("results/data/digits/images.npy")
    images.write_bytes(images.read_bytes() + b"x")
    assert main(own) == 1
    assert f"altered: {images}" in capsys.readouterr().out


def test_bad_experiments_stop_before_any_job(project: Path) -> None:
    config = project / "config/config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("seeds:", "sedes:"), encoding="utf-8")
    stopped = snakemake()
    assert stopped.returncode == 2
    assert "unknown key 'sedes'; did you mean 'seeds'?" in stopped.stderr
    assert "Traceback" not in stopped.stderr


@pytest.mark.slow
def test_a_failed_cell_keeps_no_other_from_the_report(project: Path) -> None:
    runs = [cell.id for cell in Experiment.load(Path("config/config.yaml")).runs()]
    shutil.rmtree(Path("results/runs") / runs[0])
    shutil.rmtree(Path("results/scores") / runs[0])
    shutil.rmtree(Path("results/report"))
    Path("logs/audit.json").unlink()
    work = project / "work" / runs[0]
    work.mkdir(parents=True)
    (work / "checkpoint.json").write_text("{", encoding="utf-8")  # an edited checkpoint
    failed = snakemake()
    assert failed.returncode == 1
    assert "checkpoint.json: not readable" in failed.stdout + failed.stderr
    page = Path("results/report/small/sigma-report.html").read_text(encoding="utf-8")
    assert all(run in page for run in runs[1:])


@pytest.mark.slow
def test_snakemakes_own_report_names_each_grid_of_a_batch(project: Path) -> None:
    twin = {**SMALL, "name": "twin", "title": "Those *two* of `x_` .. raw:: html", "comparisons": []}
    Path("twin.yaml").write_text(yaml.safe_dump(twin), encoding="utf-8")
    Path("both.yaml").write_text(yaml.safe_dump({"experiments": ["config/config.yaml", "twin.yaml"]}), encoding="utf-8")
    assert main(["report", "--config", "twin.yaml"]) == 0
    made = snakemake("--report", "report.html", "--configfile", "both.yaml")
    assert made.returncode == 0, made.stderr
    page = html.unescape((project / "report.html").read_text(encoding="utf-8"))
    for grid in ("small", "twin"):
        assert f"results/report/{grid}/sigma-report.html" in page
    small, twin = "(A small experiment)", "(Those *two* of `x_` .. raw:: html)"
    assert f"<strong>small</strong> {small}, with" in page
    assert "it compares gessl against base (equal outer steps)." in page
    assert f"<strong>twin</strong> {twin}, with" in page
    assert "Experiment <strong>twin</strong>: Those" in page


def test_a_wrong_configfile_is_refused_with_lines_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy_project(tmp_path / "project"))
    path = Path("config/config.yaml")
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "seeds: [1, 1]\nseeds: [010]\n", encoding="utf-8")
    wrong = "evaluation=[{protocol: fewshot/proto-v1, episodes: 0}]"
    done = snakemake("--dry-run", "--configfile", str(path), "--config", wrong)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    seeds = text.splitlines().index("seeds:") + 1
    for complaint in (
        f"{path.resolve()}:{seeds}: seeds: given twice, in lines {seeds} and ",
        "--config: evaluation.0.episodes: must be a whole number, at least 1 and at most 1000000, got 0\n",
    ):
        assert complaint in done.stderr
    assert not Path("work").exists()


@pytest.mark.slow
def test_lint_and_the_dry_run_of_the_default_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = copy_project(tmp_path / "fresh")
    shutil.copy(ROOT / "config/config.yaml", project / "config/config.yaml")
    monkeypatch.chdir(project)
    assert snakemake("--lint").returncode == 0
    dry = snakemake("--dry-run", "--quiet", "rules")
    assert dry.returncode == 0
    assert re.search(r"pretrain\s+27", dry.stdout + dry.stderr)
    made = {path.name for path in project.iterdir()}
    assert not made & {"results", "work", "logs"}, "a dry run writes nothing of ours"


def test_the_plan_of_the_jobs_has_the_order_of_the_experiment(finished: Path) -> None:
    (spec,) = (finished / "work/specs/report").glob("small-*.json")
    asked = yaml.safe_load((finished / "config/config.yaml").read_text(encoding="utf-8"))
    runs = json.loads(spec.read_text(encoding="utf-8"))["runs"]
    for key, each in (("methods", "method"), ("variants", "variant")):
        assert list(dict.fromkeys(run[each] for run in runs)) == list(asked[key]), "that of the report's tables"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake would write even for a dry run. Root may write everywhere, unless it gives that up."""
    project = copy_project(tmp_path / "theirs")
    monkeypatch.chdir(project)
    alone = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"] if os.geteuid() == 0 else []
    if alone and shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    if alone:
        os.chown(project, 65534, 65534)
    project.chmod(0o555)
    stopped = subprocess.run([*alone, *SNAKEMAKE, "--dry-run"], capture_output=True, encoding="utf-8", timeout=120)
    project.chmod(0o755)
    assert stopped.returncode == 2
    (line,) = [text for text in stopped.stderr.splitlines() if text.startswith("gessl:")]
    assert "cannot be written" in line
    assert "Traceback" not in stopped.stdout + stopped.stderr


def jobs_of(dry: subprocess.CompletedProcess[str]) -> dict[str, int]:
    assert dry.returncode == 0, dry.stderr
    found = dict(re.findall(r"^(\w+)\s+(\d+)$", dry.stdout + dry.stderr, flags=re.M))
    return {rule: int(count) for rule, count in found.items() if rule not in ("all", "total")}


@pytest.mark.slow
def test_what_is_stale_is_made_again_without_snakemakes_memory(project: Path) -> None:
    shutil.rmtree(".snakemake")
    assert "Nothing to be done" in snakemake("--dry-run").stdout, "what is current stays, too"
    config = project / "config/config.yaml"
    tree = yaml.safe_load(config.read_text(encoding="utf-8"))
    config.write_text(yaml.safe_dump(tree | {"evaluation": ["knn/5nn-euclid"]}), encoding="utf-8")
    assert jobs_of(snakemake("--dry-run", "-q", "rules")) == {"evaluate": 4, "report": 1, "audit": 1}
    one = Experiment.load(config).runs()[0].id
    named = snakemake(f"results/scores/{one}/digits/record.json", "--dry-run", "-q", "rules")
    assert jobs_of(named) == {"evaluate": 1}, "nothing but what was asked for"
    with open("requirements.lock", "a", encoding="utf-8") as lock:
        lock.write("# another environment\n")
    assert jobs_of(snakemake("--dry-run", "-q", "rules"))["pretrain"] == 4


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"protocol": "fewshot/proto-v1", "ways": [4], "episodes": 20}, id="ways", marks=pytest.mark.slow),
        pytest.param({"protocol": "fewshot/proto-v1", "shots": [2, 3], "episodes": 20}, id="shots"),
        pytest.param({"protocol": "sigma/onehot", "tasks": 6}, id="suite", marks=pytest.mark.slow),
    ],
)
def test_other_tasks_leave_every_run_as_it_is(project: Path, more: dict) -> None:
    config = project / "config/config.yaml"
    tree = yaml.safe_load(config.read_text(encoding="utf-8"))
    kept = [one for one in tree["evaluation"] if not isinstance(one, dict) or one["protocol"] != more["protocol"]]
    assert len(kept) == len(tree["evaluation"]) - 1 and more not in tree["evaluation"]
    config.write_text(yaml.safe_dump(tree | {"evaluation": [*kept, more]}), encoding="utf-8")
    expected = {"tasks": 2, "evaluate": 4, "report": 1, "audit": 1}
    assert jobs_of(snakemake("--dry-run", "-q", "rules")) == expected
    shutil.rmtree(".snakemake")
    assert jobs_of(snakemake("--dry-run", "-q", "rules")) == expected, "by our own records, too"
