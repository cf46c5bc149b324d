"""Test images that encoders were trained on are counted and marked: on the page, in CSV and in LaTeX."""

import csv
import html
import random

import pytest
from tree import Tree, folder_bytes

from gessl.errors import UserError
from gessl.layout import data_dir, report_dir
from gessl.records.record import read_record
from gessl.report.collect import collect, read_data_cards
from gessl.report.export import paper_csv, paper_latex
from gessl.report.page import render
from gessl.report.paper import paper_table
from gessl.report.plan import Layout, LayoutColumn
from gessl.report.seen import UNKNOWN, seen_by
from gessl.report.step import report
from gessl.report.tables import build_tables

pytestmark = pytest.mark.usefixtures("no_figures")

ONE = {"methods": ("simclr",), "seeds": (0, 1), "failed": None, "missing": None}


def drawn(seed, count=60):
    rng = random.Random(seed)
    return [(rng.choice(["train", "val", "test"]), rng.randrange(1, 300)) for _ in range(count)]


CONTENTS = {"digits": drawn(0), "other": drawn(1), "clean": [("train", 1000), ("test", 2000), ("test", 3000)]}


def counted(dataset, target):
    """By loops: test images of the target, and those whose content, or look, is in the train split."""
    tested = [content for split, content in CONTENTS[target] if split == "test"]
    trained = [content for split, content in CONTENTS[dataset] if split == "train"]
    same = sum(any(content == other for other in trained) for content in tested)
    return len(tested), same, sum(any(content // 2 == other // 2 for other in trained) for content in tested)


def page():
    return html.unescape((report_dir("demo") / "sigma-report.html").read_text(encoding="utf-8"))


def lines(name):
    with open(report_dir("demo") / "tables" / name, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_was_trained_on_is_counted_per_target(project):
    plan = Tree(elsewhere=("other", "clean", "unprepared"), contents=CONTENTS, **ONE).write()
    found = seen_by(plan, read_data_cards(plan))
    assert set(found) == {("digits", name) for name in ("digits", "other", "clean")}
    for (dataset, target), seen in found.items():
        assert (seen.images, seen.same, seen.alike) == counted(dataset, target)
    assert 0 < found["digits", "other"].same < found["digits", "other"].alike
    assert found["digits", "clean"].sentence == UNKNOWN.sentence == ""


def test_it_is_marked_wherever_the_numbers_are(project):
    plan = Tree(elsewhere=("other", "clean"), contents=CONTENTS, **ONE).write()
    report(plan)
    images, same, alike = counted("digits", "other")
    sentence = (
        f"Of {images} test images of other, {same} are among those of digits that encoders were trained on, and {alike}"
    )
    assert (
        page().count(f"⚠ {sentence}") == len([t for t in build_tables(plan, collect(plan)) if t.target == "other"]) > 0
    )
    assert "test images of clean" not in page()
    marked, clean = (
        lines("digits--other--linear-wmse-v1--accuracy.csv"),
        lines("digits--clean--linear-wmse-v1--accuracy.csv"),
    )
    assert {(row["test_same"], row["test_alike"]) for row in marked} == {(str(same), str(alike))}
    assert {(row["test_same"], row["test_alike"]) for row in clean} == {("0", "0")}
    latex = (report_dir("demo") / "tables/digits--other--linear-wmse-v1--accuracy.tex").read_text(encoding="utf-8")
    assert f"% {sentence}" in latex


def test_the_table_in_the_layout_of_a_paper_marks_its_columns(project):
    plan = Tree(elsewhere=("other", "clean"), contents=CONTENTS, **ONE).write()
    collected = collect(plan)
    tables = build_tables(plan, collected)
    names = ("other", "clean")
    plan = type(plan)(**vars(plan) | {"layout": Layout(tuple(LayoutColumn("linear/wmse-v1", name) for name in names))})
    paper = paper_table(plan, tables)
    assert [bool(seen.sentence) for seen in paper.seen] == [True, False]
    text = html.unescape(render(plan, collected, [], [], paper))
    assert text.count("linear/wmse-v1 ⚠<small>") == text.count(f"⚠ {paper.notes[0]}") == 1
    latex = paper_latex(paper)
    assert latex.count(r"\dag{}") == 1 and f"% †: {paper.notes[0]}" in latex
    rows = list(csv.DictReader(paper_csv(paper).splitlines()))
    assert {(row["target"], row["test_same"]) for row in rows} == {("other", str(paper.seen[0].same)), ("clean", "0")}


def test_what_was_read_is_in_the_record_and_the_bytes_stay(project):
    plan = Tree(elsewhere=("other",), contents=CONTENTS, **ONE).write()
    report(plan)
    paths = {entry["path"]: entry["record"] for entry in read_record(report_dir("demo"))["inputs"]}
    for name in ("digits", "other"):
        made = read_record(data_dir(name))["id"]
        assert [paths[f"results/data/{name}/{file}"] for file in ("index.csv", "looks.npy")] == [made, made]
    before = folder_bytes(report_dir("demo"))
    report(plan)
    assert folder_bytes(report_dir("demo")) == before


def test_without_looks_only_contents_are_compared(project):
    plan = Tree(contents=CONTENTS | {"digits": [("train", 4), ("test", 4), ("test", 5)]}, **ONE).write()
    (data_dir("digits") / "looks.npy").unlink()
    (seen,) = seen_by(plan, read_data_cards(plan)).values()
    assert (seen.images, seen.same, seen.alike) == (2, 1, None)
    assert seen.sentence.endswith(
        "1 are among those of digits that encoders were trained on, and looks are not compared."
    )


def test_looks_of_small_drawings_are_not_compared(project):
    plan = Tree(elsewhere=("other",), contents=CONTENTS, **ONE).write()
    cards = read_data_cards(plan)
    small = {**cards, "digits": {**cards["digits"], "size": [8, 8]}}
    assert [seen.alike for seen in seen_by(plan, small).values()] == [None, None]
    assert all(seen.alike is not None for seen in seen_by(plan, cards).values())


def test_damage_is_one_line(project):
    plan = Tree(contents=CONTENTS, **ONE).write()
    (data_dir("digits") / "index.csv").write_text("id,label\n0,1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"index\.csv: cannot be read \(.*split.*; .*gessl prepare digits"):
        seen_by(plan, read_data_cards(plan))
