"""What stands where a file should be, and never ends, is no reason to wait for ever."""

import os
from pathlib import Path

from gessl.data.registry import dataset
from gessl.data.supply import supply
from gessl.layout import RECORD, data_dir
from gessl.records.current import read_if_any


def test_a_pipe_in_place_of_a_card_or_a_record_is_none(prepared: Path) -> None:
    folder = data_dir("digits")
    assert supply(dataset("digits")).counted and read_if_any(folder) is not None
    (folder / "card.json").unlink()
    os.mkfifo(folder / "card.json")
    assert not supply(dataset("digits")).counted
    (folder / RECORD).unlink()
    os.mkfifo(folder / RECORD)
    assert read_if_any(folder) is None
