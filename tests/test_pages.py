"""Pages: links lead somewhere, figures and versions are those given elsewhere, and some words do not come back."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from gessl import __version__
from gessl.methods import method_names
from tests.conftest import ROOT

PLACES = (
    *("README.md", "CONTRIBUTING.md", "Makefile", "Snakefile", ".ci/run"),
    *("docs", "config", "workflow", "gessl", "studies", "benchmarks", "tests"),
)
TEXTS = {".md", ".py", ".yaml", ".smk", ".json", ".rst", ".j2", ".js", ".css", ".mplstyle", ""}
WORDS = {
    r"behind": "after, or from: a number comes from scores",
    r"mend(s|ed|ing)?": "fix",
    r"told": "said, or known",
    r"beside": "next to",
    r"word of": "what is said",
    r"so many": "a number of, or as many as",
}
RANKED = re.compile(r"\bahead\b", re.I)  # a comparison is ahead or behind


def texts() -> list[Path]:
    found = [path for place in PLACES for path in (ROOT / place, *(ROOT / place).rglob("*")) if path.is_file()]
    return [
        path for path in found if path.suffix in TEXTS and path != Path(__file__) and "__pycache__" not in path.parts
    ]


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Lines for people, with their numbers: of Python, comments and strings of more than one word."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        lines = text.splitlines()
        yield from enumerate([line.partition("//")[2] for line in lines] if path.suffix == ".js" else lines, 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "COMMENT" or (kind in ("STRING", "FSTRING_MIDDLE") and " " in token.string):
            yield from enumerate(token.string.splitlines(), token.start[0])


def plain(line: str) -> str:
    """Without code: what stands between backticks, and what a template or an f-string puts in."""
    return re.sub(r"`[^`]*`|\{\{.*?\}\}|\{%.*?%\}|\{[^{}]*\}", "", line)


@pytest.mark.parametrize(("word", "better"), WORDS.items(), ids=WORDS)
def test_no_such_word_is_left(word: str, better: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in prose(path)
        if re.search(rf"\b{word}\b", plain(line), re.I) and not (word == "behind" and RANKED.search(line))
    ]
    assert not found, f"{word!r}: say {better}\n" + "\n".join(found)


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_first_page_gives_the_version_and_only_figures_that_were_measured() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\nVersion {__version__} · " in readme
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f'\nversion = "{__version__}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (claim,) = re.findall(r"\*\*Does it help\?\*\*.*?\n\n", readme, flags=re.S)
    rows = (ROOT / "docs/does-it-help.md").read_text(encoding="utf-8").splitlines()
    cells = {cells[1].strip(): cells for row in rows if len(cells := row.split("|")) > 5}
    seconds = {cells[name][7].strip() for name in ("base", "late GeSSL")}
    tested = {cells[name][3].strip() for name in cells if name.startswith(("late GeSSL is as good", "the base for as"))}
    figures = [number for text in tested for number in re.findall(r"[\d.]+", text)]
    assert set(re.findall(r"(\d+) s\b", claim)) == seconds
    assert sorted(map(float, re.findall(r"\d+\.\d+", claim.partition("(docs/does")[0]))) == sorted(
        float(figure) for figure in figures
    )


def test_of_methods_there_are_as_many_as_the_first_page_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"around any of {len(method_names())} ways to learn" in readme
