"""`python -m benchmarks.audit` on a small grid: what it builds passes an audit, and all arms read all of it."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import audit as benchmark
from gessl.audit.audit import audit, format_verdict


def test_the_grid_is_one_that_an_audit_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    benchmark.build(3, 0.01)
    verdict = audit()
    assert verdict.ok, format_verdict(verdict)
    assert verdict.records == 4 + 3 * 3
    rows = benchmark.measured(2)
    assert [row["arm"] for row in rows] == ["sha256sum", "hashing", "gessl audit"]
    assert {(row["files"], row["bytes"]) for row in rows} == {(verdict.files, verdict.bytes)}
    assert rows[0]["ratio"] == 1
    assert all(row["ratio"] > 0 for row in rows)
    assert benchmark.markdown(rows).count("\n| gessl audit | ") == 1


def test_a_project_that_fails_its_audit_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    benchmark.build(1, 0.01)
    next(Path("results/runs").rglob("metrics.jsonl")).write_text("altered", encoding="utf-8")
    with pytest.raises(SystemExit, match="audit FAILED"):
        benchmark.gessl_audit()


def test_the_peer_reads_every_file_or_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-a b").write_text("x", encoding="utf-8")
    benchmark.sha256sum(["-a b"])
    with pytest.raises(subprocess.CalledProcessError):
        benchmark.sha256sum(["-a b", "none"])
