"""The numbers, against means and intervals computed here from the made-up scores."""

import csv
import dataclasses
import hashlib
import itertools
import json
import math
import re
import statistics

import numpy as np
import pytest
from scipy import stats
from tree import CARDS_OF, FAILED, INVALID, METHODS, MISSING, NUMBERS, PAIRS, PROTOCOLS, SEEDS, SIGMA, VARIANTS, Tree

from gessl.errors import UserError
from gessl.files import atomic_text
from gessl.layout import file_stem, report_dir, run_dir, scores_dir, work_dir
from gessl.report.collect import collect
from gessl.report.export import escape, to_csv, to_latex
from gessl.report.plan import ReportPlan
from gessl.report.states import input_files
from gessl.report.step import report
from gessl.report.tables import build_tables, cell_id, file_name, number
from gessl.report.wording import cost

pytestmark = pytest.mark.usefixtures("no_figures")


def tables_of(tree):
    plan = tree.write()
    return {(table.protocol, table.metric): table for table in build_tables(plan, collect(plan))}


def cell(table, task, method, column):
    return next(
        c for row in table.rows if (row.task, row.method) == (task, method) for c in row.cells if c.column == column
    )


def rows_of(demo):
    return [row for path in sorted(demo.glob("tables/*.csv")) for row in csv.DictReader(path.open())]


def seeds_of(method, variant):
    return [seed for seed in SEEDS if (method, variant, seed) not in (FAILED, MISSING)]


def entry(protocol, task, metric):
    return next(item for item in NUMBERS if item[:3] == (protocol, task, metric))


def folder_of(run, protocol, target="digits"):
    """Where the scores lie that are reported under a protocol id."""
    (name,) = (name for name, reported in PROTOCOLS.items() if protocol in reported)
    return scores_dir(run.id, target) / file_stem(name)


IMAGES = 72  # of the test split, by the data card


def floor(row, seeds, *variants):
    """Half width that the test items allow to a mean over seeds or, given two variants, to their difference."""
    key, unit = f"{row['protocol']}/{row['task']}", row["unit"]
    found = []
    for variant in variants:
        folders = [folder_of(Tree().run(row["method"], variant, seed), row["protocol"]) for seed in seeds]
        found.append(np.mean([np.load(folder / "outcomes.npz")[key] for folder in folders], axis=0))
    items = found[0] - found[1] if len(found) == 2 else found[0]
    scale = 100 if unit == "%" else 1000 if row["metric"] == "sigma_sum" else 1
    return 1.959964 * math.hypot(scale * stats.sem(items), 100 / IMAGES if unit == "%" else 0)


def test_means_and_intervals_over_seeds(demo):
    checked = 0
    for row in rows_of(demo):
        if row["kind"] != "mean":
            continue
        item = entry(row["protocol"], row["task"], row["metric"])
        values = [Tree().value(row["method"], row["column"], s, item) for s in seeds_of(row["method"], row["column"])]
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        both = (high - low) / 2, floor(row, seeds_of(row["method"], row["column"]), row["column"])
        assert (float(row["over_seeds"]), float(row["over_items"])) == pytest.approx(
            both, rel=1e-4
        )  # sums are of rounded means
        half = max(both)
        low, high = np.mean(values) - half, np.mean(values) + half
        assert [float(row[key]) for key in ("mean", "lo", "hi")] == pytest.approx(
            [np.mean(values), low, high], rel=1e-6
        )
        assert (int(row["n"]), int(row["planned"])) == (len(values), 3)
        decimals = len(row["text"].split(" ")[0].partition(".")[2])
        assert row["text"] == f"{np.mean(values):.{decimals}f} ± {(high - low) / 2:.{decimals}f}"
        checked += 1
    assert checked == len(METHODS) * len(VARIANTS) * len(NUMBERS)


def test_differences_are_paired_by_seed(demo):
    pairs = {f"Δ {pair.treatment} − {pair.control}": pair for pair in PAIRS}
    judged = 0
    for row in rows_of(demo):
        if row["kind"] != "difference":
            continue
        pair, item = pairs[row["column"]], entry(row["protocol"], row["task"], row["metric"])
        common = [s for s in seeds_of(row["method"], pair.treatment) if s in seeds_of(row["method"], pair.control)]
        a, b = ([Tree().value(row["method"], v, s, item) for s in common] for v in (pair.treatment, pair.control))
        assert float(row["mean"]) == pytest.approx(np.mean(np.subtract(a, b)), abs=1e-9)
        assert int(row["n"]) == len(common)
        if len(common) == 1:
            assert row["lo"] == row["hi"] == row["over_seeds"] == "" and "±" not in row["text"]
            assert float(row["over_items"]) == pytest.approx(floor(row, common, pair.treatment, pair.control), rel=1e-4)
            continue
        low, high = stats.ttest_rel(a, b).confidence_interval()
        both = (high - low) / 2, floor(row, common, pair.treatment, pair.control)
        assert (float(row["over_seeds"]), float(row["over_items"])) == pytest.approx(
            both, rel=1e-4
        )  # sums are of rounded means
        half = max(both)
        low, high = np.mean(np.subtract(a, b)) + half * np.array([-1, 1])
        assert (float(row["lo"]), float(row["hi"])) == pytest.approx((low, high), rel=1e-6)
        observed = abs(np.mean(np.subtract(a, b)))
        flips = [abs(np.mean(np.multiply(np.subtract(a, b), s))) for s in itertools.product((1, -1), repeat=len(a))]
        assert float(row["p"]) == pytest.approx(np.mean([flip >= observed - 1e-9 for flip in flips]))
        assert float(row["min_p"]) == 2 ** (1 - len(a))
        judged += 1
    assert judged > 8


def test_both_intervals_are_below_each_number(demo):
    page = (demo / "sigma-report.html").read_text(encoding="utf-8")
    keys, wanted = ("protocol", "method", "column"), ["linear/wmse-v1", "simclr", "base"]
    (row,) = (row for row in rows_of(demo) if [row[key] for key in keys] == wanted)
    seeds, items = (f"{float(row[name]):.2f}" for name in ("over_seeds", "over_items"))
    assert f"<small>seeds ± {seeds} · items ± {items}</small>" in page
    assert page.count("<small>items ± ") == len(NUMBERS)  # a single pair of seeds has no other


def test_holm_family_is_every_difference_once(demo):
    rows = [r for r in rows_of(demo) if r["kind"] == "difference" and int(r["n"]) > 1]
    none = [row for row in rows if row["metric"].endswith("_sum") or row["protocol"] == INVALID]
    family = sorted((row for row in rows if row not in none), key=lambda r: float(r["p"]))
    running = 0.0
    for place, row in enumerate(family):
        running = max(running, min(1.0, float(row["p"]) * (len(family) - place)))
        assert float(row["p_holm"]) == pytest.approx(running)
    assert none and all(row["p_holm"] == "" for row in none)


def test_ids_resolve_to_the_scores_behind_the_text(demo):
    stored = {
        row["id"]: row
        for path in demo.parents[1].glob("scores/*/*/*/scores.csv")
        for row in csv.DictReader(path.open())
    }
    known = json.loads((demo / "ids.json").read_text(encoding="utf-8"))
    assert set(known) == {row["id"] for row in rows_of(demo) if row["id"]}
    for digits, item in known.items():
        text = json.dumps(
            {"kind": item["kind"], "scores": sorted(item["scores"])}, sort_keys=True, separators=(",", ":")
        )
        assert digits == hashlib.sha256(text.encode()).hexdigest()[:16]
        rows = [stored[score] for score in item["scores"]]
        groups = {}
        for row in rows:  # the made-up run ids name their variant
            groups.setdefault(re.search(r"-\d([a-z-]+)-s\d", row["run"]).group(1), []).append(float(row["value"]))
        shown = float(item["text"].split(" ")[0].replace("−", "-"))
        if item["kind"] == "mean":
            (values,) = groups.values()
            assert shown == pytest.approx(np.mean(values), rel=1e-3)
        else:
            treatment = groups.pop("gessl")
            (control,) = groups.values()
            assert shown == pytest.approx(np.mean(treatment) - np.mean(control), abs=0.06)


def test_latex_holds_the_same_numbers_as_csv(demo):
    for path in demo.glob("tables/*.tex"):
        lines = path.read_text(encoding="utf-8").splitlines()
        width = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", path.read_text(encoding="utf-8"))[1])
        assert [line for line in lines if line in (r"\toprule", r"\midrule", r"\bottomrule")][0::3] == [
            r"\toprule",
            r"\bottomrule",
        ]
        body = lines[lines.index(r"\midrule", lines.index(r"\midrule") + 1) + 1 : lines.index(r"\bottomrule")]
        wanted = list(csv.DictReader(path.with_suffix(".csv").open()))
        found = []
        for line in body:
            columns = line.removesuffix(r" \\").split(" & ")
            assert len(columns) == width
            found += columns[2:]
        for cell_text, row in zip(found, wanted, strict=True):
            plain = re.sub(r"\\mathbf\{(.*)\}", r"\1", cell_text.split(r" {\scriptsize")[0].strip("$"))
            assert plain.replace(r"\pm", "±").replace("-", "−") == row["text"]
            assert cell_text.endswith(rf"({row['n']})}}")
            assert ("mathbf" in cell_text) == (row["verdict"] in ("better", "worse"))


def test_a_table_holds_one_protocol_and_one_metric(demo):
    for path in demo.glob("tables/*.csv"):
        assert len({(row["dataset"], row["protocol"], row["metric"]) for row in csv.DictReader(path.open())}) == 1


def test_cost_stands_beside_each_number(project):
    table = tables_of(Tree())["linear/wmse-v1", "accuracy"]
    assert cell(table, "all", "simclr", "base").seconds == pytest.approx(0.04 * 99)
    assert cell(table, "all", "simclr", "gessl").images == 99 * 1024
    ratio = cell(table, "all", "simclr", "Δ gessl − base")
    assert (ratio.seconds, ratio.images) == pytest.approx((4.0, 4.0))


def test_the_share_that_waited_for_data_stands_there_where_it_is_known(project):
    """Of each run the median over its steps, of them the median: neither heeds the first step."""
    table = tables_of(Tree())["linear/wmse-v1", "accuracy"]
    base, gessl, difference = (cell(table, "all", "simclr", name) for name in ("base", "gessl", "Δ gessl − base"))
    assert base.data_wait == pytest.approx(0.25 + 0.01 * statistics.median(seeds_of("simclr", "base")))
    assert cost(base).endswith(f" img · {100 * base.data_wait:.0f} % waiting for data")
    assert gessl.data_wait is difference.data_wait is None
    assert "waiting" not in cost(gessl) + cost(difference)


def test_a_single_seed_has_no_interval(project):
    tables = tables_of(Tree(seeds=(0,), failed=None, missing=None))
    cells = [c for table in tables.values() for row in table.rows for c in row.cells]
    assert cells and all("±" not in c.text and c.text and c.lo is None and c.verdict == "unjudged" for c in cells)


def test_a_score_that_is_not_finite_is_left_out_and_counted(project):
    table = tables_of(Tree(values={("simclr", "base", 0, "linear/wmse-v1", "all"): math.nan}))[
        "linear/wmse-v1", "accuracy"
    ]
    mean, difference = cell(table, "all", "simclr", "base"), cell(table, "all", "simclr", "Δ gessl − base")
    assert (mean.n, mean.lost, mean.planned) == (2, 1, 3) and math.isfinite(mean.mean)
    assert (difference.n, difference.lost) == (2, 1)


def test_scores_that_are_all_lost_leave_an_empty_cell(project):
    lost = {("simclr", "base", seed, "linear/wmse-v1", "all"): math.nan for seed in SEEDS}
    found = cell(tables_of(Tree(values=lost))["linear/wmse-v1", "accuracy"], "all", "simclr", "base")
    assert (found.text, found.id, found.lost) == ("", "", 3)


def test_a_protocol_missing_in_one_run_lowers_its_n_only(project):
    tables = tables_of(Tree(without={("simclr", "gessl", 1): "linear/wmse-v1"}))
    assert cell(tables["linear/wmse-v1", "accuracy"], "all", "simclr", "gessl").n == 2
    assert cell(tables["scarce/linear-v1", "accuracy"], "10pct", "simclr", "gessl").n == 3


@pytest.mark.parametrize(("shift", "verdict"), [(-0.5, "better"), (0.5, "worse")])
def test_lower_is_better_turns_the_verdict(project, shift, verdict):
    values, seeds = {}, tuple(range(6))
    for seed in seeds:
        values["simclr", "base", seed, SIGMA, "suite"] = 1.0 + 0.01 * seed
        values["simclr", "gessl", seed, SIGMA, "suite"] = 1.0 + shift + 0.012 * seed
    tree = Tree(methods=("simclr",), variants=("base", "gessl"), seeds=seeds, failed=None, missing=None, values=values)
    tables = tables_of(tree)
    assert cell(tables[SIGMA, "sigma_mean"], "suite", "simclr", "Δ gessl − base").verdict == verdict


def test_states_of_runs(project):
    tree = Tree()
    plan = tree.write()
    trained = tree.run("simclr", "base", 0)
    (folder_of(trained, "linear/wmse-v1") / "record.json").unlink()
    retried = tree.run("simclr", "base", 1)
    atomic_text(work_dir(retried.id) / "failed.json", "{}")  # of an attempt before the one that finished
    runs = collect(plan).runs.set_index(["method", "variant", "seed"])
    assert runs.loc[("simclr", "base", 0), "state"] == "not evaluated"
    assert runs.loc[("simclr", "base", 1), "state"] == "finished"
    assert runs.loc[FAILED, "state"] == "failed" and "step 120: the loss" in runs.loc[FAILED, "detail"]
    assert runs.loc[MISSING, "state"] == "not run"
    assert not any(trained.id in path.parts for path in input_files(plan))


def damage(path, old, new):
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",nats,lower,", ",bits,lower,", "unit"),
        (",lower,", ",higher,", "better"),
        (",digits,simclr,", ",other,simclr,", "on other data"),
        (",v0,", ",v1,", "data versions"),
        ("metric", "measure", "column 'metric' is missing"),
        ("digits-6base-s0", "digits-6base-s1", "another run"),
        (",360,", ",many,", "cannot be read"),
        (",360,", ",360,360,", "cannot be read"),
        ("linear/wmse-v1,all", "linear/wmse-v1,=cmd", "a formula"),
        (",lower,", ",smaller,", "better"),
    ],
)
def test_contradicting_or_damaged_scores_are_refused(project, old, new, message):
    tree = Tree(variants=("base",), methods=("simclr",), failed=None, missing=None)
    plan = tree.write()
    protocol = SIGMA if "lower" in old else "linear/wmse-v1"
    path = folder_of(tree.run("simclr", "base", 0), protocol) / "scores.csv"
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    damage(path, old, new)
    with pytest.raises(UserError, match=message) as error:
        collect(plan)
    assert "\n" not in str(error.value)


def test_a_score_under_two_ids_counts_once(project):
    plan = Tree(variants=("base",), methods=("simclr",), seeds=(0,), failed=None, missing=None).write()
    path = folder_of(plan.runs[0], "linear/wmse-v1") / "scores.csv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "f" * 16 + text.splitlines()[1][16:] + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="appears twice"):
        collect(plan)


@pytest.mark.parametrize("content", ["", "{", "[1]\n", "\n"])
def test_damaged_metrics_are_refused_with_their_path(project, content):
    tree = Tree(variants=("base",), methods=("simclr",), seeds=(0,), failed=None, missing=None)
    plan = tree.write()
    path = run_dir(plan.runs[0].id) / "metrics.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(path.as_posix())):
        collect(plan)


def test_numbers_as_text():
    assert number(-1.239, "%") == "−1.24" and number(0.5, "%", signed=True) == "+0.50"
    assert [number(x, "nats") for x in (0.12345, 12.345, 855.165, 12345.6)] == ["0.123", "12.35", "855.2", "12346"]


def test_ids_do_not_depend_on_order_but_on_kind():
    assert cell_id("mean", ("a", "b")) == cell_id("mean", ("b", "a")) != cell_id("difference", ("a", "b"))


def test_file_names_stay_inside_the_folder_and_apart():
    assert file_name("digits", "linear/wmse-v1", "accuracy") == "digits--linear-wmse-v1--accuracy"
    names = {file_name("../a b", "x"), file_name("../a?b", "x")}
    assert len(names) == 2 and not any("/" in name for name in names)


def test_latex_escapes_what_it_would_interpret(project):
    assert escape("50% & a_b {x} $1 \\input #~^") == (
        r"50\% \& a\_b \{x\} \$1 \textbackslash{}input \#\textasciitilde{}\textasciicircum{}"
    )
    tree = Tree(methods=("a_b & \\input{x}",), failed=None, missing=None, seeds=(0, 1))
    table = tables_of(tree)["linear/wmse-v1", "accuracy"]
    assert r"a\_b \& \textbackslash{}input\{x\}" in to_latex(table) and r"\input{x}" not in to_latex(table)
    assert {row["method"] for row in csv.DictReader(to_csv(table).splitlines())} == {"a_b & \\input{x}"}


def test_variants_may_share_a_run(project):
    plan = Tree(failed=None, missing=None).write()
    base = [run for run in plan.runs if run.variant == "base"]
    again = tuple(dataclasses.replace(run, variant="again") for run in base)
    shared = ReportPlan(plan.grid, plan.title, (*plan.runs, *again), plan.comparisons)
    for table in build_tables(shared, collect(shared)):
        for row in table.rows:
            cells = {cell.column: cell for cell in row.cells}
            assert cells["again"].id == cells["base"].id
            assert cells["again"].text == cells["base"].text


def test_scores_on_another_data_set_have_a_table_of_their_own(project):
    tree = Tree(failed=None, missing=None, elsewhere=("letters",))
    plan = tree.write()
    tables = build_tables(plan, collect(plan))
    own, other = ([table for table in tables if table.target == target] for target in ("digits", "letters"))
    assert {(t.protocol, t.metric) for t in own} == {(t.protocol, t.metric) for t in other}
    assert {(t.dataset, t.data) for t in own} == {("digits", "digits")}
    assert {(t.dataset, t.data) for t in other} == {("digits", "digits → letters")}
    for first, second in zip(own, other, strict=True):
        for row in second.rows:
            for seen in (cell for cell in row.cells if cell.column in VARIANTS):
                at_home = cell(first, row.task, row.method, seen.column)
                assert seen.mean == pytest.approx(0.9 * at_home.mean)
                assert seen.id != at_home.id and not {*seen.scores} & {*at_home.scores}
    report(plan)
    text = (report_dir("demo") / "sigma-report.html").read_text(encoding="utf-8")
    assert "digits → letters" in text
    files = {path.name for path in report_dir("demo").glob("tables/*.csv")}
    assert {"digits--linear-wmse-v1--accuracy.csv", "digits--letters--linear-wmse-v1--accuracy.csv"} <= files


def test_what_numbers_mean_is_read_from_their_cards(project):
    text = "A card's own words."
    cards = CARDS_OF | {
        "linear/wmse-v1": dataclasses.replace(
            CARDS_OF["linear/wmse-v1"], text=text, invalid="not valid here: so it is"
        ),
        INVALID: dataclasses.replace(CARDS_OF[INVALID], invalid=""),
    }
    tables = tables_of(Tree(seeds=tuple(range(6)), failed=None, missing=None, cards=cards))
    assert {name: table.card for (name, _), table in tables.items()} == cards
    delta = cell(tables["linear/wmse-v1", "accuracy"], "all", "simclr", "Δ gessl − base")
    assert (delta.verdict, delta.p_holm) == ("unjudged", None)
    assert cell(tables[INVALID, "sigma_mean"], "suite", "simclr", "Δ gessl − base").p_holm is not None


@pytest.mark.parametrize("content", ["", "[1]", '{"linear/wmse-v1": {"text": 1, "source": ""}}', '{"a": {"x": ""}}'])
def test_damaged_cards_are_refused_with_their_path(project, content):
    plan = Tree(variants=("base",), methods=("simclr",), seeds=(0,), failed=None, missing=None).write()
    path = folder_of(plan.runs[0], "linear/wmse-v1") / "card.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(path.as_posix())):
        collect(plan)
