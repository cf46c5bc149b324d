"""The table in a paper's layout: the same numbers, marks by intervals, published rows, LaTeX that is one."""

import csv
import dataclasses
import itertools
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tree import SIGMA, Tree

from gessl.layout import report_dir
from gessl.report.collect import collect
from gessl.report.export import paper_latex
from gessl.report.paper import _marks, paper_table
from gessl.report.plan import Layout, LayoutColumn, LayoutRow
from gessl.report.reference import Reference
from gessl.report.step import report
from gessl.report.tables import Cell, build_tables

COLUMNS = (
    LayoutColumn("linear/wmse-v1", label="linear"),
    LayoutColumn("scarce/linear-v1", task="1-per-class"),
    LayoutColumn(SIGMA, task="suite", metric="sigma_mean", label="σ"),
)
ROWS = (LayoutRow("base"), LayoutRow("gessl", "+ GeSSL"))
QUOTE = Reference(
    "Somebody & Co", "https://example.org/paper", "memory", "linear/wmse-v1", "digits", "simclr", "small-conv", 91.8
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A project of made-up runs, and its plan."""
    root, before = tmp_path_factory.mktemp("project"), Path.cwd()
    os.chdir(root)
    try:
        path = Path("config/reference/somebody.yaml")
        path.parent.mkdir(parents=True)
        path.write_text("source: Somebody & Co\n", encoding="utf-8")
        quotes = (
            dataclasses.replace(QUOTE, file=str(path)),
            dataclasses.replace(QUOTE, file=str(path), method="people", value=95.5),
            dataclasses.replace(QUOTE, file=str(path), protocol="linear/online"),
        )
        plan = Tree(failed=None, missing=("byol", "base", 0), elsewhere=("letters",)).write()
        plan = dataclasses.replace(plan, references=quotes, layout=Layout(COLUMNS, ROWS, "The table"))
        report(plan)
    finally:
        os.chdir(before)
    return root, plan


@pytest.fixture
def plan(written, monkeypatch):
    """With its project as working directory."""
    monkeypatch.chdir(written[0])
    return written[1]


def built(plan):
    return paper_table(plan, build_tables(plan, collect(plan)))


def test_no_layout_no_table(plan):
    assert built(dataclasses.replace(plan, layout=None)) is None


def test_rows_and_columns_are_those_asked_for(plan):
    table = built(plan)
    assert [column.heading for column in table.columns] == ["linear", "scarce/linear-v1 1-per-class", "σ"]
    assert table.groups == (("digits", 3),)
    assert table.better == ("higher", "higher", "lower")
    ours = [row.label for row in table.rows if not row.source]
    assert ours == ["simclr", "simclr + GeSSL", "byol", "byol + GeSSL"]
    quoted = [
        (place, row.label, [each.text for each in row.cells]) for place, row in enumerate(table.rows) if row.source
    ]
    assert quoted == [(2, "simclr", ["91.80", "", ""]), (5, "people", ["95.50", "", ""])]


def test_each_number_is_a_cell_of_its_own_table(plan):
    tables = build_tables(plan, collect(plan))
    table = paper_table(plan, tables)
    for row, (method, variant) in zip(
        (row for row in table.rows if not row.source),
        itertools.product(("simclr", "byol"), ("base", "gessl")),
        strict=True,
    ):
        for column, each in zip(table.columns, row.cells, strict=True):
            (cell,) = (
                cell
                for other in tables
                if (other.protocol, other.metric, other.target) == (column.protocol, column.metric, "digits")
                for place in other.rows
                if (place.task, place.method) == (column.task, method)
                for cell in place.cells
                if cell.column == variant
            )
            assert each.cell == cell and each.text == cell.text != ""


def test_columns_of_a_target_stand_together_and_all_variants_are_rows_by_default(plan):
    columns = (*COLUMNS[:2], LayoutColumn("linear/wmse-v1", target="letters"), LayoutColumn(SIGMA, target="nowhere"))
    table = built(dataclasses.replace(plan, layout=Layout(columns)))
    assert table.groups == (("digits", 2), ("letters", 1), ("nowhere", 1))
    assert table.caption == plan.title
    assert [row.label for row in table.rows if not row.source][:3] == [
        "simclr", "simclr + base-images", "simclr + gessl",
    ]  # fmt: skip
    for row in table.rows:
        assert not row.cells[3].text, "what was not scored is missing"
        assert row.source or row.cells[2].text
        assert not row.source or not row.cells[2].text, "published on digits, not on letters"


def marks_by_hand(cells, better):
    """Enumerated: `best` overlaps the best mean's interval; `second` the best of the rest."""
    sign = {"higher": 1, "lower": -1}[better]
    found = [""] * len(cells)
    if any(cell.mean is not None and cell.lo is None for cell in cells):
        return found
    left = [place for place, cell in enumerate(cells) if cell.mean is not None]
    for mark in ("best", "second"):
        if not left:
            break
        top = max(left, key=lambda place: sign * cells[place].mean)
        group = [
            place for place in left if max(cells[place].lo, cells[top].lo) <= min(cells[place].hi, cells[top].hi)
        ]  # fmt: skip
        if mark == "best" and len(group) == len(left):
            break
        for place in group:
            found[place] = mark
        left = [place for place in left if place not in group]
    return found


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_marks_are_those_of_an_enumeration(better):
    draw = random.Random(0)
    kinds = set()
    for _ in range(500):
        cells = []
        for _ in range(draw.randint(1, 6)):
            mean, half = draw.randint(0, 8), draw.choice([0.0, 0.5, 1.0, 2.0])  # ties, and intervals that touch
            one = draw.random()
            if one < 0.1:
                cells.append(Cell("base", "mean"))
            elif one < 0.13:
                cells.append(Cell("base", "mean", mean=mean, n=1))
            else:
                cells.append(Cell("base", "mean", mean=mean, lo=mean - half, hi=mean + half, n=3))
        # equal means with unequal intervals: which of them is the best is open, so take only clear cases
        means = [cell.mean for cell in cells if cell.mean is not None]
        if len(set(means)) < len(means):
            continue
        marks = _marks([cell if cell.mean is not None else None for cell in cells], better)
        assert marks == marks_by_hand(cells, better)
        kinds |= set(marks)
    assert kinds == {"", "best", "second"}


def test_equal_cells_get_equal_marks():
    same = [Cell("a", "mean", mean=5.0, lo=4.0, hi=6.0), Cell("b", "mean", mean=5.0, lo=4.9, hi=5.1)]
    worse = Cell("c", "mean", mean=1.0, lo=0.5, hi=1.5)
    for cells in itertools.permutations([*same, worse]):
        assert sorted(_marks(cells, "higher")) == ["best", "best", "second"]


def test_csv_has_every_cell(plan):
    with open(report_dir("demo") / "tables/paper.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = built(plan)
    assert len(rows) == len(table.rows) * len(table.columns)
    assert [row["text"] for row in rows] == [each.text for row in table.rows for each in row.cells]
    origin = "Somebody & Co, small-conv, from memory, not confirmed"
    assert {row["source"] for row in rows if row["row"] == "people"} == {origin}
    assert all((row["id"] != "") == (row["text"] != "" and row["source"] == "") for row in rows)


def parsed(text):
    """The rows of a tabular with each cell's text, checked by counting: columns, braces, mathematics."""
    head, body = text.split(r"\midrule", 1)
    width = len(re.search(r"\\begin\{tabular\}\{(l r*|lr*)\}", head)[1])
    spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", head)]
    assert sum(spans) == width - 1
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    for line in rows:
        assert line.count("{") - line.count(r"\{") == line.count("}") - line.count(r"\}")
        assert line.count("$") % 2 == 0
        assert len(re.split(r"(?<!\\)&", line)) == width
    return rows


def test_latex_is_whole(plan):
    table = built(plan)
    text = paper_latex(table)
    rows = parsed(text)
    assert len(rows) == len(table.rows)
    marked = [each.mark for row in table.rows for each in row.cells]
    assert text.count(r"\mathbf{") == marked.count("best")
    assert text.count(r"\underline{") == marked.count("second")
    assert sum(r"\textcolor{gray}" in line for line in rows) == 2
    assert r"Somebody \& Co" in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX on this machine")
def test_latex_compiles(plan, tmp_path):
    body = paper_latex(built(plan))
    text = "\\documentclass{article}\\usepackage{booktabs,xcolor}\\begin{document}\n" + body + "\\end{document}\n"
    (tmp_path / "paper.tex").write_text(text, encoding="utf-8")
    done = subprocess.run(["pdflatex", "-halt-on-error", "paper.tex"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


def test_the_page_shows_it_with_lineage(plan):
    page = (report_dir("demo") / "sigma-report.html").read_text(encoding="utf-8")
    block = page[page.index('class="results paper"') :]
    block = block[: block.index("</table>")]
    table = built(plan)
    for row in table.rows:
        for each in row.cells:
            if each.cell:
                assert f'href="#c-{each.cell.id}"' in block
    assert "Somebody &amp; Co" in block and "95.50" in block
