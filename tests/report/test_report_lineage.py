"""What the page says of a number is what `gessl trace` says of it."""

import json
import re
import socket
import xml.etree.ElementTree as ElementTree
from collections import Counter
from html.parser import HTMLParser

import pytest
from tree import DRAWN, NUMBERS, PROTOCOLS, SEEDS, Tree, folder_bytes

from gessl.audit.trace import lineage_tree
from gessl.layout import data_dir, report_dir, run_dir, tasks_dir
from gessl.records.record import parse_record
from gessl.report.step import report
from tests.support.toy_project import make_again

pytestmark = pytest.mark.usefixtures("no_figures")

PAGE = "sigma-report.html"
VOID = {"meta", "link", "img", "input", "br", "path", "use"}


class Entries(HTMLParser):
    """Entries of the lineage section: their links, their text, and the entry that they stand in."""

    def __init__(self, text):
        super().__init__()
        self.links, self.texts, self.inside, self._open, self.anchors = {}, {}, {}, [], Counter()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        entry = attributes.get("id") if "data-kind" in attributes else None
        self.anchors[attributes.get("id")] += 1
        current = next((name for name in reversed(self._open) if name), None)
        if tag not in VOID:
            self._open.append(entry)
        if entry:
            self.inside[entry], self.links[entry], self.texts[entry] = current, [], ""
        elif current and tag == "a":
            self.links[current].append(attributes["href"].removeprefix("#"))

    def handle_endtag(self, tag):
        if tag not in VOID:
            self._open.pop()

    def handle_data(self, data):
        for entry in filter(None, self._open):
            self.texts[entry] += data

    def behind(self, anchor):
        """All entries that the links lead to, from a score by way of the record that made it."""
        found, waiting = set(), [anchor]
        for name in waiting:
            links = [self.inside[name]] if name.startswith("s-") else self.links[name]
            waiting += [link for link in links if not link.startswith("e-") and link not in found | {anchor}]
            found.update(links)
        return {name for name in found if not name.startswith("e-")}


@pytest.fixture
def page(demo):
    return Entries((demo / PAGE).read_text(encoding="utf-8"))


def origins_of(node):
    """Scores, records and data versions of a trace, and the facts of each record."""
    facts = node["facts"]
    found = [("s", facts["score"])] if "score" in facts else []
    found += [("r", facts["record"])] if "record" in facts else []
    found += [("d", facts["data version"])] if "data version" in facts else []
    records = {facts["record"]: facts} if "record" in facts and not node.get("repeated") else {}
    for child in node["children"]:
        more, others = origins_of(child)
        found += more
        records |= others
    return found, records


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])  # a trace takes half a second
def test_the_page_and_the_trace_tell_the_same_chain_of_every_number(demo, page, every):
    cells = json.loads((demo / "ids.json").read_text(encoding="utf-8"))
    assert len(cells) > 50
    by_kind = sorted(cells, key=lambda digits: (cells[digits]["kind"], digits))
    for digits in by_kind[::every]:
        found, records = origins_of(lineage_tree(digits))
        shown = page.behind(f"c-{digits}")
        assert {name for name in shown if name[0] != "d"} == {f"{kind}-{name}" for kind, name in found if kind != "d"}
        versions = {name for kind, name in found if kind == "d"}
        pins = [page.texts[name] for name in shown if name[0] == "d"]
        assert len(pins) == len(versions) == 1 and versions.pop() in pins[0]
        for name, facts in records.items():
            for key in ("seed", "config", "command", "took"):
                assert facts.get(key, "") in page.texts[f"r-{name}"]


def test_every_part_is_told_once(page):
    twice = {name: count for name, count in page.anchors.items() if name in page.texts and count > 1}
    assert twice == {}
    kinds = Counter(name[0] for name in page.texts)
    runs = 16
    assert (kinds["r"], kinds["s"], kinds["d"]) == (
        (1 + len(PROTOCOLS)) * runs + len(DRAWN) * len(SEEDS) + 2,
        len(NUMBERS) * runs,
        1,
    )


def test_every_mark_of_a_figure_leads_to_an_entry(demo, page):
    text = (demo / PAGE).read_text(encoding="utf-8")
    inlined = re.findall(r"<a [^>]*href=\"#([^\"]+)\"", text)
    assert set(inlined) <= set(page.anchors)
    drawn = []
    for path in demo.glob("figures/*.svg"):
        if path.stem == "profile":  # a curve over all numbers at once
            continue
        leads = [
            a.get("{http://www.w3.org/1999/xlink}href") for a in ElementTree.parse(path).iter() if a.tag[-2:] == "}a"
        ]
        assert leads and all(lead.startswith(f"../{PAGE}#") for lead in leads), path
        drawn += [lead.split("#")[1] for lead in leads]
    assert set(drawn) <= set(page.texts)
    scores = {
        f"s-{score}"
        for cell in json.loads((demo / "ids.json").read_text(encoding="utf-8")).values()
        for score in cell["scores"]
    }
    assert {name for name in drawn if name[0] == "s"} <= scores
    headline = next(path for path in demo.glob("figures/headline*.svg")).read_text(encoding="utf-8")
    assert headline.count("#s-") == 16 * 2 and headline.count("#c-") == (6 + 4) * 2


def test_only_records_are_read_beyond_the_inputs(project):
    plan = Tree(failed=None, missing=None, seeds=(0, 1)).write()
    report(plan)
    first = folder_bytes(report_dir("demo"))
    (tasks_dir("digits", 0) / "fewshot__proto_v1" / "tasks.npz").unlink()
    (data_dir("digits") / "images.npy").write_bytes(b"altered")
    report(plan)
    assert folder_bytes(report_dir("demo")) == first


def test_what_was_made_again_since_is_said(project, monkeypatch):
    tree = Tree(failed=None, missing=None, seeds=(0, 1))
    plan = tree.write()
    lost = parse_record((run_dir(plan.runs[0].id) / "record.json").read_bytes())["inputs"][0]["record"]
    monkeypatch.setattr(socket, "gethostname", lambda: "another")  # within one second, the record might be the same
    make_again(data_dir("digits"))
    report(plan)
    page = Entries((report_dir("demo") / PAGE).read_text(encoding="utf-8"))
    assert f"r-{lost[:12]}" not in page.texts, "the record that is there now is shown, for it has the same bytes"
    assert not any("made again since" in text for text in page.texts.values())
    assert any(name[0] == "d" for name in page.texts)
    make_again(data_dir("digits"), {"images.npy": b"others"})
    report(plan)
    page = Entries((report_dir("demo") / PAGE).read_text(encoding="utf-8"))
    assert "made again since" in page.texts[f"r-{lost[:12]}"]
    assert not any(name[0] == "d" for name in page.texts)
