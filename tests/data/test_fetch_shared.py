"""Files that several data sets share: `raw:<data set>/<file>` leads to those of another one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gessl.data import dvc_store
from gessl.data.fetch import fetch
from gessl.data.pin import folder_hashes, folder_md5
from gessl.errors import UserError
from gessl.layout import pin, raw_dir


def _pin(name: str) -> None:
    out = {"md5": folder_md5(folder_hashes(raw_dir(name))), "size": 57523, "nfiles": 1, "path": name}
    pin(name).write_text(yaml.safe_dump({"outs": [out]}), encoding="utf-8")


@pytest.fixture
def shared(register: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Data set `mine`, whose file is that of `digits`; the pin is written as DVC would, which takes seconds."""
    monkeypatch.setattr(dvc_store, "add", _pin)
    file: dict[str, Any] = {"name": "digits.csv.gz", "source": "raw:digits/digits.csv.gz", "bytes": 57523}
    register("mine", "digits", files=[file])


def test_a_shared_file_is_linked(shared: None, project: Path) -> None:
    fetch("digits")
    fetch("mine")
    one, other = project / "data/raw/digits/digits.csv.gz", project / "data/raw/mine/digits.csv.gz"
    assert os.path.samefile(one, other)


def test_where_links_cannot_be_it_is_copied(shared: None, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    fetch("digits")
    fetch("mine")
    one, other = project / "data/raw/digits/digits.csv.gz", project / "data/raw/mine/digits.csv.gz"
    assert one.read_bytes() == other.read_bytes() and not os.path.samefile(one, other)


def test_one_that_is_not_there_is_asked_for(shared: None) -> None:
    with pytest.raises(UserError, match=r"^data/raw/digits/digits\.csv\.gz: no such file; run `gessl fetch digits` f"):
        fetch("mine")


def test_it_leads_nowhere_else(register: Callable[..., None]) -> None:
    register("mine", "digits", files=[{"name": "x", "source": "raw:digits/../../../etc/passwd"}])
    with pytest.raises(UserError, match=r"files\.0\.source: not an address"):
        fetch("mine")
