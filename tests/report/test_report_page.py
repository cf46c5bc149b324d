"""The page as text: whole, honest, offline, safe, and the same bytes each time."""

import base64
import csv
import gzip
import html
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from tree import CARDS_OF, CLIMBING, INVALID, METHODS, NUMBERS, PAIRS, SIGMA, Tree, folder_bytes

from gessl.errors import UserError
from gessl.layout import report_dir, run_dir, scores_dir
from gessl.records.record import read_record
from gessl.report import style
from gessl.report.collect import collect
from gessl.report.curves import _curve
from gessl.report.figures import draw_all
from gessl.report.plan import ReportPlan
from gessl.report.step import report
from gessl.report.style import settings
from gessl.report.tables import build_tables
from gessl.report.wording import count, duration, verdicts
from gessl.tables.scores import read_scores

PAGE = "sigma-report.html"


class Elements(HTMLParser):
    """All elements with attributes, and the text of each number's link."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.numbers, self._open = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "a" and dict(attrs).get("class") == "number":
            self._open = dict(attrs)["href"].removeprefix("#c-")
            self.numbers[self._open] = ""

    def handle_endtag(self, tag):
        self._open = None if tag == "a" else self._open

    def handle_data(self, data):
        if self._open:
            self.numbers[self._open] += data


def test_the_page_shows_every_number_of_the_tables(demo):
    shown = Elements((demo / PAGE).read_text(encoding="utf-8")).numbers
    known = json.loads((demo / "ids.json").read_text(encoding="utf-8"))
    assert shown == {digits: item["text"] for digits, item in known.items()} and len(shown) > 50
    rows = [row for path in demo.glob("tables/*.csv") for row in csv.DictReader(path.open()) if row["id"]]
    assert shown == {row["id"]: row["text"] for row in rows}


def test_second_report_has_the_same_bytes(demo):
    first = folder_bytes(demo)
    report(Tree().plan())
    assert folder_bytes(demo) == first
    assert {name.split("/")[0] for name in first} == {PAGE, "ids.json", "tables", "figures"}


def test_record_names_every_input(demo):
    record = read_record(demo)
    assert record["step"] == "report" and record["name"] == "demo" and record["config"]["grid"] == "demo"
    names = [entry["path"].rsplit("/", 1)[1] for entry in record["inputs"]]
    finished, protocols = 16, 5
    assert {name: names.count(name) for name in set(names)} == {
        "card.json": 1 + finished * protocols, "failed.json": 1,
        **dict.fromkeys(("metrics.jsonl", "config.json", "views.npy"), finished),
        **dict.fromkeys(("scores.csv", "outcomes.npz"), finished * protocols),
    }  # fmt: skip
    assert all(entry["record"] for entry in record["inputs"] if not entry["path"].endswith("failed.json"))


def assert_offline(text):
    for tag, attributes in Elements(text).elements:
        assert tag not in ("iframe", "object", "embed", "base", "audio", "video")
        for name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
            address = attributes.get(name) or "#"
            assert re.match(r"#|data:|tables/|figures/", address), (tag, address)
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\(\s*['\"]?(?!#)|@import", text)


def test_nothing_is_loaded_from_elsewhere(demo):
    text = (demo / PAGE).read_text(encoding="utf-8")
    assert_offline(text)
    links = {a["href"] for tag, a in Elements(text).elements if tag == "a" and not a["href"].startswith("#")}
    assert links and all((demo / link).is_file() for link in links)


def test_figures_are_xml_without_a_date(demo):
    paths = sorted(demo.glob("figures/*.svg"))
    assert {path.name.split("--")[0] for path in paths} == {"headline", "sigma", "scatter", "curves", "profile.svg"}
    for path in paths:
        root = ElementTree.fromstring(path.read_bytes())
        assert root.tag.endswith("svg") and not re.search(
            r"<dc:date>|\d{4}-\d\d-\d\dT|Matplotlib", path.read_text(encoding="utf-8")
        )


def test_states_reasons_and_hardware_are_on_the_page(demo):
    text = re.sub(r"\s+", " ", (demo / PAGE).read_text(encoding="utf-8"))
    assert "16<span> of 18 planned" in text and "step 120: the loss is not finite" in text
    assert text.count('class="state failed"') == 1 and text.count('class="state not-run"') == 1
    environment = next(iter(collect(Tree().plan()).records.values()))[0]["environment"]
    assert environment["processor"] in text and environment["libraries"]["numpy"] in text


def test_cells_with_a_climbing_inner_loop_are_marked_and_told_of(demo):
    text = (demo / PAGE).read_text(encoding="utf-8")
    (told,) = re.findall(r"<p>⚠ Climbing inner loop: .*?</ul>", text, flags=re.DOTALL)
    assert "the inner loop raises the base loss, so its targets are worse than where it starts" in told
    assert re.findall(r"<code>(.*?)</code>", told) == [Tree().run(*CLIMBING).id]
    rows = [row for row in re.findall(r"<tr.*?</tr>", text, flags=re.DOTALL) if "⚠ 1 with a climbing inner loop" in row]
    assert len(rows) == len(NUMBERS)
    assert all('<th scope="row">simclr</th>' in row and row.count("⚠") == 3 for row in rows), "gessl, and Δ to both"


def test_verdicts_count_what_the_tables_say(demo):
    plan = Tree().plan()
    found = verdicts(plan, build_tables(plan, collect(plan)))
    rows = [row for path in demo.glob("tables/*.csv") for row in csv.DictReader(path.open())]
    for verdict in found:
        column = f"Δ {verdict.pair.treatment} − {verdict.pair.control}"
        own = [row for row in rows if row["column"] == column and row["metric"] != "sigma_sum"]
        own = [row for row in own if row["protocol"] != INVALID]
        if verdict.where == "headline protocols":
            own = [row for row in own if row["task"] in ("1-per-class", "5w1s")]
        else:
            own = [row for row in own if (row["protocol"] == SIGMA) == (verdict.where == "σ")]
        assert (verdict.ahead, verdict.undecided, verdict.behind) == (0, 0, 0)  # three seeds are too few
        assert verdict.unjudged == len(own)
        gains = [float(row["mean"]) * (-1 if row["better"] == "lower" else 1) for row in own if row["mean"]]
        assert verdict.leaning == (sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains))
    assert len(found) == 3 * len(PAIRS)
    text = (demo / PAGE).read_text(encoding="utf-8")
    assert all((verdict.sentence in text) == (verdict.where == "headline protocols") for verdict in found)


def test_sample_views_are_the_pixels(demo):
    addresses = re.findall(r'src="data:image/png;base64,([^"]+)"', (demo / PAGE).read_text(encoding="utf-8"))
    assert len(addresses) == len(METHODS)
    grid = np.asarray(Image.open(io.BytesIO(base64.b64decode(addresses[0]))))
    views = np.load(run_dir(Tree().plan().runs[0].id) / "views.npy")
    assert (grid[9:17, 27:35, 1] == views[1, 3, 0]).all() and grid[8, 0, 3] == 0


def test_hostile_names_stay_text(project):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>$\\frac{'
    tree = Tree(title=evil, methods=(evil,), seeds=(0, 1, 2), failed=(evil, "gessl", 2), missing=None, reason=evil)
    report(tree.write())
    text = (report_dir("demo") / PAGE).read_text(encoding="utf-8")
    assert_offline(text)
    tags = [tag for tag, _ in Elements(text).elements]
    assert tags.count("script") == 1 and tags.count("img") == 1
    assert "&lt;script&gt;alert(1)" in text
    for path in report_dir("demo").glob("figures/*.svg"):
        assert not [e for e in ElementTree.fromstring(path.read_bytes()).iter() if e.tag.endswith(("script", "img"))]


def test_no_finished_run_still_makes_a_page(project):
    plan = Tree().plan()
    report(plan)
    out = report_dir("demo")
    text = (out / PAGE).read_text(encoding="utf-8")
    assert "0<span> of 18 planned" in text and "nothing to compare" in text
    assert json.loads((out / "ids.json").read_text(encoding="utf-8")) == {} and set(folder_bytes(out)) == {
        PAGE,
        "ids.json",
    }
    report(ReportPlan("empty", "No runs planned", ()))
    assert "0<span> of 0 planned" in (report_dir("empty") / PAGE).read_text(encoding="utf-8")


def test_one_seed_one_variant_no_comparison(project):
    tree = Tree(variants=("base",), seeds=(7,), failed=None, missing=None)
    report(tree.write())
    text = (report_dir("demo") / PAGE).read_text(encoding="utf-8")
    assert "No difference rests on two pairs of seeds" in text
    assert all("±" not in number for number in Elements(text).numbers.values())


def test_an_altered_score_is_refused_and_nothing_is_written(project):
    plan = Tree(seeds=(0,), failed=None, missing=None).write()
    path = scores_dir(plan.runs[0].id, "digits") / "linear__wmse_v1" / "scores.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(",360,", ",361,", 1), encoding="utf-8")
    with pytest.raises(UserError, match="altered"):
        report(plan)
    assert not report_dir("demo").exists() or not any(report_dir("demo").iterdir())


def test_the_page_tells_each_card(demo):
    text = html.unescape((demo / PAGE).read_text(encoding="utf-8"))
    for name, card in CARDS_OF.items():
        assert name in text and card.text in text and card.source in text
        assert not card.invalid or card.invalid in text


def test_durations_and_counts_as_text():
    assert [duration(s) for s in (0.4, 41.2, 100, 5999, 7200, None, float("nan"))] == [
        "0.4 s", "41 s", "1.7 min", "100 min", "2.0 h", "–", "–",
    ]  # fmt: skip
    assert [count(n) for n in (950, 12_345, 4_100_000, None)] == ["950", "12.3k", "4.1M", "–"]


def test_each_figure_is_there_for_a_paper_too(demo):
    screen, printed = ({path.stem for path in demo.glob(f"figures/*.{kind}")} for kind in ("svg", "pdf"))
    assert printed == screen
    for path in demo.glob("figures/*.pdf"):
        data = path.read_bytes()
        assert b"/MediaBox [ 0 0 486 " in data, "as wide as the text of a paper: 6.75 inches of 72 points"
        assert b"STIX" in data and b"/FontFile2" in data, "fonts are in the file, as TrueType"
        assert b"CreationDate" not in data and b"matplotlib" not in data.lower()


def test_printed_figures_are_made_again_to_the_same_bytes(demo):
    plan = Tree().plan()
    collected = collect(plan)
    with settings(printed=True):
        drawings = draw_all(plan, collected, build_tables(plan, collected))
    for drawing in drawings:
        assert drawing.file == (demo / f"figures/{drawing.name}.pdf").read_bytes()


def test_of_many_runs_figures_show_the_spread_and_tables_keep_the_links(project, monkeypatch):
    monkeypatch.setattr(style, "FEW", 5)
    tree = Tree(seeds=(0, 1), methods=("simclr",), failed=None, missing=None)
    report(tree.write())
    out = report_dir("demo")
    headline, curves = (
        (out / f"figures/{name}.svg").read_text(encoding="utf-8")
        for name in ("headline--digits--1", "curves--digits--simclr")
    )
    assert "#s-" not in headline and "#c-" in headline and "#r-" not in curves
    page = (out / PAGE).read_text(encoding="utf-8")
    assert "median and middle 80 % of the seeds" in page
    assert 'id="s-' not in page
    (packed,) = re.findall(r'id="packed">(.*?)</script>', page)
    records = gzip.decompress(base64.b64decode(packed)).decode()
    scores = read_scores(scores_dir(tree.plan().runs[0].id, "digits") / "linear__wmse_v1")
    assert all(f'id="s-{row["id"]}"' in records for row in scores)
    assert_offline(records)


def test_the_band_of_many_curves_is_numpys_quantiles(project):
    tree = Tree(seeds=tuple(range(13)), methods=("simclr",), failed=None, missing=None)
    collected = collect(tree.write())
    own = collected.curves[collected.curves["variant"] == "base"]
    figure = Figure()
    axes = figure.subplots()
    looks = {"base": ("black", "o")}
    _curve(axes, own, "step", "loss", looks, None)
    (line,) = axes.lines
    steps = sorted(own["step"].unique())
    middle = [np.median(own.loc[own["step"] == step, "loss"]) for step in steps]
    np.testing.assert_allclose(line.get_xdata(), steps)
    np.testing.assert_allclose(line.get_ydata(), middle)
    drawn = axes.collections[0].get_paths()[0].vertices[:, 1]
    ends = [np.quantile(own.loc[own["step"] == step, "loss"], [0.1, 0.9]) for step in steps]
    assert drawn.min() == pytest.approx(min(low for low, _ in ends))
    assert drawn.max() == pytest.approx(max(high for _, high in ends))
