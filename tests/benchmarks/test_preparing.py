"""`python -m benchmarks.preparing` on few pictures: both arms see all of them, and the parts add up."""

import re
from pathlib import Path

import pytest

from benchmarks import preparing


def test_both_arms_are_timed_on_the_same_pictures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    preparing.main(["--pictures", "160", "--rounds", "1"])
    head, about, table = capsys.readouterr().out.strip().split("\n\n")
    assert "cores, load" in head
    assert re.fullmatch(r"160 pictures of 500 x 375, \d+ kB each, 1 rounds, \d+ threads", about)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == [
        "read and hashed alone",
        "prepared, without measuring",
        "prepared",
        "of which measured",
    ]
    assert rows[0][4] == "1.00" and all(float(row[4]) > 0 for row in rows[:3])
    assert float(rows[2][1]) == pytest.approx(float(rows[1][1]) + float(rows[3][1]), abs=0.02)
    assert not list(tmp_path.iterdir())
