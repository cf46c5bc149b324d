"""Pages of the documentation, as what they ask their readers to type."""

import re

from tests.conftest import ROOT


def blocks(page: str, kind: str) -> list[str]:
    """The blocks of a kind (`sh`, `python`, …) in a page."""
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.S)
