"""Published numbers: next to ours under the same protocol, data set and method; marked; recorded; nowhere else."""

import csv
import dataclasses
import re
from pathlib import Path

import pytest
from tree import Tree

from gessl.errors import UserError
from gessl.layout import report_dir
from gessl.records.record import read_record
from gessl.report.collect import collect
from gessl.report.export import ids, to_csv, to_latex
from gessl.report.reference import Reference
from gessl.report.step import report
from gessl.report.tables import build_tables, differences

pytestmark = pytest.mark.usefixtures("no_figures")

FILE = "config/reference/somebody.yaml"
SAME = Reference(
    "Somebody & Co", "https://example.org/paper", "memory", "linear/wmse-v1", "digits", "simclr", "small-conv", 91.8,
    epochs=1000, file=FILE,
)  # fmt: skip
OTHERS = {
    "protocol": "linear/online",
    "dataset": "cifar10",
    "method": "byol-like",
    "task": "10pct",
    "metric": "top5",
}


@pytest.fixture
def tree(project):
    path = Path(FILE)
    path.parent.mkdir(parents=True)
    path.write_text("source: Somebody & Co\n", encoding="utf-8")
    return Tree(failed=None, missing=None)


def quoting(tree, *references):
    return dataclasses.replace(tree.write(), references=references)


def test_a_quote_stands_in_its_row_only(tree):
    plan = quoting(tree, SAME)
    rows = [(t.protocol, row.method, row.quotes) for t in build_tables(plan, collect(plan)) for row in t.rows]
    assert [(protocol, method) for protocol, method, quotes in rows if quotes] == [("linear/wmse-v1", "simclr")]
    assert all(quotes in ((), (SAME,)) for *_, quotes in rows)


@pytest.mark.parametrize(("key", "value"), OTHERS.items())
def test_what_was_measured_otherwise_is_not_shown(tree, key, value):
    plan = quoting(tree, dataclasses.replace(SAME, **{key: value}))
    assert not any(table.quotes for table in build_tables(plan, collect(plan)))


def test_a_page_without_quotes_speaks_of_none(tree):
    report(quoting(tree, *(dataclasses.replace(SAME, **{key: value}) for key, value in OTHERS.items())))
    text = (report_dir("demo") / "sigma-report.html").read_text(encoding="utf-8")
    assert "Somebody" not in text and "published by others" not in text


def test_quotes_change_no_number_of_ours(tree):
    plain = tree.write()
    quoted = dataclasses.replace(plain, references=(SAME,))
    before, after = (build_tables(plan, collect(plan)) for plan in (plain, quoted))
    assert ids(before) == ids(after)
    assert differences(before) == differences(after)


def test_the_page_marks_a_quote_and_its_source(tree):
    under = dataclasses.replace(SAME, value=93.25, gessl=True, certainty="secondary", note="4 views")
    report(quoting(tree, SAME, under))
    text = re.sub(r"\s+", " ", (report_dir("demo") / "sigma-report.html").read_text(encoding="utf-8"))
    assert "published by others, not ours" in text
    assert "<i>91.80</i><small>Somebody &amp; Co, small-conv, 1000 epochs, from memory, not confirmed</small>" in text
    assert "Somebody &amp; Co, under GeSSL, small-conv, 1000 epochs, 4 views, read at second hand" in text
    assert "https://example.org/paper" in text and 'href="https://example.org' not in text


def test_exports_mark_a_quote(tree):
    plan = quoting(tree, SAME)
    (table,) = (t for t in build_tables(plan, collect(plan)) if t.protocol == "linear/wmse-v1")
    rows = [row for row in csv.DictReader(to_csv(table).splitlines()) if row["kind"] == "quoted"]
    assert [(row["method"], row["column"], row["mean"], row["id"]) for row in rows] == [
        ("simclr", "quoted", "91.8", "")
    ]
    assert rows[0]["source"].endswith("from memory, not confirmed, https://example.org/paper")
    lines = to_latex(table).splitlines()
    quote = r"91.80 (Somebody \& Co, small-conv, 1000 epochs, from memory, not confirmed)"
    assert sum(quote in line for line in lines) == 1
    widths = {line.count(" & ") for line in lines if line.endswith(r"\\") and "multicolumn" not in line}
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", to_latex(table))
    assert widths == {len(columns.group(1)) - 1}


def test_the_record_names_the_file_of_the_quotes(tree):
    plan = quoting(tree, SAME, dataclasses.replace(SAME, note="another"))
    report(plan)
    record = read_record(report_dir("demo"))
    assert [entry["path"] for entry in record["inputs"] if "reference" in entry["path"]] == [FILE]
    assert record["config"]["references"][0]["value"] == 91.8
    Path(FILE).unlink()
    with pytest.raises(UserError, match=r"somebody\.yaml: no such file"):
        report(plan)


@pytest.mark.parametrize(("key", "value"), [("value", float("inf")), ("source", ""), ("epochs", 0)])
def test_what_nobody_published_is_refused(key, value):
    with pytest.raises(ValueError, match=f"^{key}: "):
        dataclasses.replace(SAME, **{key: value})
