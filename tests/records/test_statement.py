"""The file of a record is what others' tools take for an in-toto Statement with SLSA provenance."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage

from gessl.records.record import parse_record, read_record
from gessl.records.statement import flat_record, statement
from gessl.records.step import Step

OUT = Path("results/data/toy")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    Path("source").write_text("0", encoding="utf-8")
    with Step("prepare", "toy", OUT, inputs=[Path("source")], config={"size": [8, 8]}, seed=3) as step:
        step.path("a").write_text("1", encoding="utf-8")
        step.path("sub/b").write_text("", encoding="utf-8")
    found: dict[str, Any] = json.loads((OUT / "record.json").read_bytes())
    return found


def test_others_read_it(written: dict[str, Any]) -> None:
    """The library of the format's authors takes it, every field known to it, and finds it valid."""
    message = json_format.ParseDict(written, StatementMessage())
    taken = Statement.copy_from_pb(message)
    taken.validate()
    assert json_format.MessageToDict(message) == written


def test_it_says_what_was_asked_what_was_read_and_what_came(written: dict[str, Any]) -> None:
    flat = read_record(OUT)
    assert flat is not None
    assert [entry["name"] for entry in written["subject"]] == ["results/data/toy/a", "results/data/toy/sub/b"]
    build = written["predicate"]["buildDefinition"]
    assert build["externalParameters"] == {"step": "prepare", "name": "toy", "config": {"size": [8, 8]}, "seed": 3}
    code, source = build["resolvedDependencies"]
    assert code["digest"]["sha256"] == flat["code"]["sources"]
    assert (source["name"], source["annotations"]) == ("source", {"bytes": 1, "record": None})
    assert written["predicate"]["runDetails"]["metadata"]["startedOn"] == flat["started"]


def test_there_and_back(written: dict[str, Any]) -> None:
    assert statement(flat_record(written)) == written
    committed = flat_record(written) | {"code": {"commit": "c" * 40, "sources": "5" * 64}}
    assert statement(committed)["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"] == {
        "gitCommit": "c" * 40,
        "sha256": "5" * 64,
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("subject"),
        lambda found: found.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda found: found.update(predicateType="https://example.org/other"),
        lambda found: found["predicate"].update(buildDefinition=[]),
        lambda found: found["predicate"]["buildDefinition"].update(resolvedDependencies=[]),
        lambda found: found["predicate"]["runDetails"]["builder"].update(id="https://example.org"),
        lambda found: found["predicate"]["runDetails"]["builder"].update(id=3),
        lambda found: found["subject"][0].update(annotations=None),
        lambda found: found["subject"][0]["annotations"].update(bytes="1"),
    ],
)
def test_statements_of_others_are_said_to_be_none_of_ours(written: dict[str, Any], change: Any) -> None:
    change(written)
    with pytest.raises(ValueError, match=r"Statement of a step of gessl|no valid field"):
        parse_record(json.dumps(written).encode())
