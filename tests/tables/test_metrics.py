"""Rows of metrics: whole, torn by a kill, taken back, and the last one from the end of the file."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gessl.tables.metrics import TAIL, append_rows, keep_rows, last_row, read_metrics

ROWS = st.lists(st.dictionaries(st.sampled_from(["step", "loss", "σ"]), st.none() | st.integers() | st.floats(-9, 9)))


@given(rows=ROWS, cut=st.integers(0, 400))
def test_what_a_kill_cuts_short_is_the_rows_before(
    rows: list[dict[str, object]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "metrics.jsonl"
    path.unlink(missing_ok=True)
    append_rows(path, rows)
    assert read_metrics(path) == read_metrics(path, whole=True) == rows
    assert last_row(path) == (rows[-1] if rows else {})
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    whole = data.count(b"\n") + (data[-1:] == b"}")
    assert read_metrics(path) == rows[:whole]
    assert last_row(path) == (rows[whole - 1] if whole else {})


def test_rows_from_a_step_on_are_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert keep_rows(path, 3) == [] and path.read_bytes() == b""
    append_rows(path, [{"step": step} for step in range(5)])
    assert keep_rows(path, 3) == read_metrics(path) == [{"step": step} for step in range(3)]


def test_the_last_row_is_read_from_the_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_row(path) == {}
    rows = [{"step": step, "loss": 0.5} for step in range(TAIL)]
    append_rows(path, rows)
    assert last_row(path) == rows[-1]
    with open(path, "ab") as file:
        file.write(b'{"step": 9')
    assert last_row(path) == rows[-1]


@pytest.mark.parametrize("line", ["[1]", "3", "{", '{"loss": NaN}', "null"])
def test_what_is_no_row_is_refused_or_the_end(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 0}) + f"\n{line}\n", encoding="utf-8")
    assert read_metrics(path) == [{"step": 0}]
    with pytest.raises(ValueError):  # noqa: PT011 (any of the JSON reader's)
        read_metrics(path, whole=True)
