"""The crate: judged by a validator of others, and by reading it back as plain JSON."""

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gessl.audit.rocrate import write_crate
from gessl.cli import main
from gessl.errors import UserError
from gessl.layout import data_dir, run_dir
from gessl.records.record import parse_record, read_record
from gessl.records.step import Step
from tests.support.toy_project import RUN, make_again, make_report, scored

PROFILE = "provenance-run-crate-0.5"


@pytest.fixture
def crate(project: Path) -> Path:
    """The crate of the project's report, with its project as working directory."""
    Path("workflow/rules").mkdir(parents=True)
    Path("Snakefile").write_text("include: 'workflow/rules/data.smk'\n", encoding="utf-8")
    Path("workflow/rules/data.smk").write_text("rule fetch:\n", encoding="utf-8")
    assert main(["crate", "grid", "crate"]) == 0
    return project / "crate"


def _entities(crate: Path) -> dict[str, dict[str, Any]]:
    graph = json.loads((crate / "ro-crate-metadata.json").read_text(encoding="utf-8"))["@graph"]
    found = {entity["@id"]: entity for entity in graph}
    assert len(found) == len(graph)
    return found


def _references(entity: dict[str, Any], key: str) -> set[str]:
    value = entity.get(key, [])
    return {one["@id"] for one in (value if isinstance(value, list) else [value])}


def _issues(crate: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the validator misses of what the profile requires; without network, so with a copy of the vocabulary."""
    reason = "roc-validator is not installed"
    services = pytest.importorskip("rocrate_validator.services", reason=reason)
    http = pytest.importorskip("rocrate_validator.utils.http", reason=reason)
    import requests
    import rocrate

    context = json.loads((Path(rocrate.__file__).parent / "data/ro-crate.jsonld").read_text(encoding="utf-8"))
    context["@context"]["ComputationalWorkflow"] = "https://bioschemas.org/ComputationalWorkflow"  # as in version 1.1
    answer = requests.Response()
    answer.status_code, answer._content = 200, json.dumps(context).encode()
    answer.headers["Content-Type"] = "application/ld+json"
    monkeypatch.setattr(http.HttpRequester, "get", lambda self, url, **_: answer, raising=False)
    settings = services.ValidationSettings(rocrate_uri=str(crate), profile_identifier=PROFILE, offline=True)
    return [str(issue.message) for issue in services.validate(settings).get_issues()]


def test_the_validator_finds_nothing_missing(crate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _issues(crate, monkeypatch) == []


def test_the_validator_would_find_a_tool_that_is_missing(crate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = crate / "ro-crate-metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    for entity in metadata["@graph"]:
        entity.pop("hasPart" if entity["@id"] == "Snakefile" else "", None)
    path.write_text(json.dumps(metadata), encoding="utf-8")
    assert any("hasPart" in issue for issue in _issues(crate, monkeypatch))


def test_every_record_is_an_action_with_its_files(crate: Path) -> None:
    entities = _entities(crate)
    by_hash = {entity["sha256"]: name for name, entity in entities.items() if "sha256" in entity}
    records = [parse_record(path.read_bytes()) for path in Path("results").rglob("record.json")]
    assert {record["step"] for record in records} == {"fetch", "prepare", "tasks", "pretrain", "evaluate", "report"}
    for record in records:
        action = entities[f"#{record['id']}"]
        assert (action["startTime"], action["endTime"]) == (record["started"], record["finished"])
        read = {by_hash[entry["sha256"]] for entry in record["inputs"]}
        seed = set() if record["seed"] is None else {f"#seed-{record['seed']}"}
        assert _references(action, "object") == read | seed
        assert _references(action, "result") == {by_hash[entry["sha256"]] for entry in record["outputs"]}
        assert entities[action["instrument"]["@id"]]["name"] == f"gessl {record['step']}"


def test_small_files_are_copied_and_large_ones_named_by_content(crate: Path) -> None:
    entities = _entities(crate)
    files = {name: entity for name, entity in entities.items() if "File" in entity["@type"]}
    copied = {path.relative_to(crate).as_posix() for path in crate.rglob("*") if path.is_file()}
    assert copied - {"ro-crate-metadata.json"} == {name for name in files if not name.startswith("ni:")}
    for name, entity in files.items():
        if not name.startswith("ni:") and "sha256" in entity:
            assert hashlib.sha256((crate / name).read_bytes()).hexdigest() == entity["sha256"]
    weights = (run_dir(RUN) / "encoder.safetensors").read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(weights).digest()).decode().rstrip("=")
    assert files[f"ni:///sha-256;{digest}"]["name"] == f"results/runs/{RUN}/encoder.safetensors"
    names = {entity["name"] for name, entity in files.items() if name.startswith("ni:")}
    assert {"data/raw/toy/images.bin", "results/data/toy/images.npy"} <= names
    assert {"data/raw/toy.dvc", "results/report/grid/ids.json", f"results/runs/{RUN}/record.json"} <= copied


def test_what_would_be_a_lie_is_refused_and_nothing_is_written(crate: Path) -> None:
    with pytest.raises(UserError, match="crate: exists already"):
        write_crate("grid", crate)
    with pytest.raises(UserError, match="results/report/other: no finished report"):
        write_crate("other", Path("new"))
    path = scored(RUN) / "scores.csv"
    before = path.read_text(encoding="utf-8")
    path.write_text(before + " ", encoding="utf-8")
    with pytest.raises(UserError, match=r"scores\.csv: not the file that its record names"):
        write_crate("grid", Path("new"))
    path.write_text(before, encoding="utf-8")
    make_again(data_dir("toy"), {"images.npy": b"others"})
    with pytest.raises(UserError, match="made again since; run the workflow again"):
        write_crate("grid", Path("new"))
    assert sorted(path.name for path in Path().iterdir() if "new" in path.name) == []


@pytest.mark.parametrize("name", ["Snakefile", "workflow/rules/data.smk"])
def test_a_source_of_any_size_is_not_copied(crate: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    os.truncate(name, 2**40)
    assert main(["crate", "grid", "new"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gessl: {name}: larger than")
    assert not [path for path in Path().iterdir() if "new" in path.name]


@pytest.mark.parametrize(("out", "place"), [("/proc/x/y", "/proc/x"), ("Snakefile/y", "Snakefile")])
def test_a_place_that_cannot_be_made_is_one_line(
    crate: Path, out: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["crate", "grid", out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gessl: {place}: ")


def test_all_runs_of_a_report_share_their_data(crate: Path) -> None:
    other = "toy-simclr-s1-4567abcd"
    images = Path("results/data/toy/images.npy")
    with Step("pretrain", other, run_dir(other), inputs=[images], config={}, seed=1) as step:
        step.path("config.json").write_text("{}", encoding="utf-8")
    with Step("evaluate", other, scored(other), inputs=[run_dir(other) / "config.json"], config={}) as step:
        step.path("scores.csv").write_text("id\n", encoding="utf-8")
    make_report("grid", RUN, other)
    assert write_crate("grid", Path("new")) == 8
    record = read_record(Path("results/data/toy"))
    assert record is not None
    digest = next(entry["sha256"] for entry in record["outputs"] if entry["path"] == images.as_posix())
    assert sum(entity.get("sha256") == digest for entity in _entities(Path("new")).values()) == 1
