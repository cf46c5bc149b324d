"""`python -m benchmarks.waiting` on few pictures: both arms train, and say how much they waited."""

import pytest

from benchmarks import waiting


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_both_arms_train_and_say_how_long_they_waited(capsys: pytest.CaptureFixture[str]) -> None:
    waiting.main(["--images", "24", "--batch", "4", "--steps", "8", "--rounds", "1", "--threads", "1"])
    head, table = capsys.readouterr().out.strip().split("\n\n")
    assert "batch 4, 24 pictures, 1 threads, 1 rounds of 3 steps" in head
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == list(waiting.ARMS)
    assert all(float(row[1]) > 0 and 0 <= float(row[3]) <= float(row[4]) <= 1 for row in rows)
