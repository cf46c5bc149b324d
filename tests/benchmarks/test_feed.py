"""`python -m benchmarks.feed` on few pictures: every arm gives its views, and the table compares them with ours."""

import re

import pytest

from benchmarks import feed


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_every_arm_is_timed_on_the_same_pictures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "ROWS", 1000)
    feed.main(["--images", "10", "--rounds", "1", "--workers", "1"])
    head, about, table, memory, opened, *rest = capsys.readouterr().out.strip().split("\n\n")
    assert not rest and "cores, load" in head
    assert re.fullmatch(r"10 pictures of \d+ kB, 1 rounds, 1 threads or workers", about)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == ["ours", "torchvision, Pillow", "torchvision, tensors"]
    assert rows[0][3:] == ["1.00", "1.00"] and all(int(row[1]) > 0 for row in rows)
    assert memory.startswith("Memory") and opened.startswith("Opening 1000 pictures")
