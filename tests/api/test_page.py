"""The page on these functions: its examples run, and it names what there is."""

import re
from pathlib import Path
from typing import Any

import pytest

import gessl
from tests.conftest import ROOT
from tests.evaluation.toy import write_run
from tests.support.pages import blocks

PAGE = "docs/python.md"


def test_the_examples_run(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run()
    space: dict[str, Any] = {}
    for block in blocks(PAGE, "python"):
        exec(compile(block, PAGE, "exec"), space)
    said = capsys.readouterr().out
    for part in ("torch.Size([1797, 64])", "σ = ", "| untrained | linear/wmse-v1 ", "OuterStep(loss="):
        assert part in said
    assert {row.subject for row in space["table"]} == {"encoder", "pixels", "untrained"}
    assert space["measured"].per_task.shape == (20,)


def test_the_page_names_every_function_and_no_other() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert set(re.findall(r"gessl\.(\w+)", text)) == set(gessl.__all__)
    assert PAGE in (ROOT / "README.md").read_text(encoding="utf-8")
