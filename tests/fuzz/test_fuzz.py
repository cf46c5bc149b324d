"""Never a traceback, never a hang, never success on nonsense.

A failing case is printed with its number; `pytest -m slow 'tests/fuzz/test_fuzz.py::test_…[number]'` runs its group
again. What is nonsense is decided without the code that is tested: by jsonschema, by what was done to a tree.
"""

import copy
import functools
import json
import os
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gessl.grid.schema import schema
from gessl.records.record import parse_record, record_id, record_text
from tests.conftest import SMALL
from tests.faults.test_operations import READ_ONLY, WRITING
from tests.fuzz.draws import DEEP, NONSENSE, mutate
from tests.support.disk import Attempt, attempt
from tests.support.toy_project import RUN, make_data, make_raw, make_report, make_run

pytestmark = pytest.mark.slow
GROUP = 50  # cases of one test
SECONDS, MEMORY = 30, 3 * 2**30  # that a verb may take of so little data
CONFIG = Path("config/config.yaml")
VERBS = {
    "audit": ["audit"],
    "trace": ["trace", RUN],
    "diff": ["diff", RUN, RUN],
    "replay": ["replay", RUN],
    "crate": ["crate", "grid", "handed on"],
    "status": ["status"],
}


def run(words: list[str], case: str) -> Attempt:
    """One verb, bounded; fails on a traceback, a hang, or an end without a word."""

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    try:
        met = attempt(words, before=limit, seconds=SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{case}: {error}") from None
    told = f"{case}\n$ gessl {' '.join(words)}\n{met.err[-1500:]}"
    if "Traceback" in met.err:
        raise AssertionError(told)
    assert met.code in (0, 1, 2, 3), f"exit code {met.code}: {told}"
    assert met.code != 2 or met.said, told
    assert met.code != 2 or all(line.startswith(("gessl:", "config/")) or ": " in line for line in met.said), told
    return met


# experiments

FULL = SMALL | {
    "efficiency": {"checkpoint_every": 3, "log_every": 1, "threads": 1, "compile": False, "embed_batch": 64},
    "evaluation": ["knn/5nn-euclid"],
    "axes": {"train.lr": [0.1, 0.01]},
}
ODDITIES = (
    "\tname: tab\n", "a: &a [*a]\n", "? [1, 2]\n: x\n", "!!python/object/apply:os.system ['touch hacked']\n", "\ufeff",
    "<<: {seeds: [3]}\n", "%YAML 9.9\n---\n", "---\na: 1\n---\nb: 2\n", "name: *nowhere\n", "seeds: [0o10]\n",
    "title: 2026-13-45\n", "extra: " + "[" * DEEP + "\n", "extra: " + "{a: " * DEEP + "\n", '"\\uD800": 1\n',
    "x: !!binary '*'\n", "x: !!float 'abc'\n", "x: !!timestamp 'x'\n", "x: !!set [1]\n", "\x00", "\x1b[31m: 1\n", "[]",
    "a: &a {x: 1}\n" + "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else '*a'] * 9)}]\n" for n in range(12)),
)  # fmt: skip


def drawn_experiment(draw: random.Random) -> tuple[str, bool]:
    """The text of an experiment file, and whether it is surely wrong."""
    tree = copy.deepcopy(FULL)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        mutate(tree, draw)
    text = yaml.safe_dump(tree, allow_unicode=draw.random() < 0.5, sort_keys=False)
    kind = draw.random()
    if kind < 0.1:
        key = draw.choice([line for line in text.splitlines() if line[:1].isalpha() and ":" in line])
        return f"{text}{key.partition(':')[0]}: {json.dumps(draw.choice(('x', 1, [])))}\n", True
    if kind < 0.3:
        odd = draw.choice(ODDITIES)
        text = draw.choice((odd, odd + text, text + odd))
    elif kind < 0.35:
        place = draw.randrange(len(text))
        text = text[:place] + draw.choice(("\0", "\t", "'", '"', "{", "]", "\r", "&", "*", "\x85")) + text[place + 1 :]
    return text, is_nonsense(text)


def is_nonsense(text: str) -> bool:
    """By other means than ours: YAML that cannot be loaded, JSON schema, numbers that are none."""
    if len(text) > 50_000 or "b11:" in text:
        return False
    try:
        tree = yaml.safe_load(text)
        if isinstance(tree, dict) and "experiments" in tree:
            return False
        jsonschema.validate(tree, json.loads(schema()))
        return not finite(tree)
    except (yaml.YAMLError, jsonschema.ValidationError, ValueError, TypeError, AttributeError, RecursionError):
        return True


def finite(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or value * 0 == 0


@pytest.mark.parametrize("group", range(10))
def test_experiments(finished: Path, tmp_path: Path, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 of them."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished / "config", "config")
    shutil.copytree(finished / "data", "data")
    failed = []
    for number in range(group * GROUP, (group + 1) * GROUP):
        text, wrong = drawn_experiment(random.Random(number))
        CONFIG.write_bytes(text.encode(errors="surrogatepass"))
        case = f"experiment {number}:\n{text[:1500]}"
        for words in (["check"], ["plan", str(CONFIG)])[: 1 + (number % 5 == 0)]:
            failed += failures(lambda words=words, case=case, wrong=wrong: judge(run(words, case), wrong, case))
    assert not Path("hacked").exists()
    if failed:
        pytest.fail("\n\n".join(failed), pytrace=False)


def judge(met: Attempt, wrong: bool, case: str) -> None:
    assert not (wrong and met.code == 0), f"success on nonsense: {case}"


def failures(check: Callable[[], object]) -> list[str]:
    """What the check found, so that one case does not hide the others."""
    try:
        check()
    except AssertionError as error:
        return [str(error)]
    return []


# records and trees


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project of real steps."""
    root, before = tmp_path_factory.mktemp("toy"), Path.cwd()
    os.chdir(root)
    try:
        make_data("toy", make_raw("toy"))
        make_run(RUN)
        make_report("grid", RUN)
        for name in ("workflow/rules/a.smk", "Snakefile"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text("rule all:\n", encoding="utf-8")
    finally:
        os.chdir(before)
    return root


def fresh(template: Path, here: Path) -> None:
    os.chdir(here.parent)
    if here.exists():
        shutil.rmtree(here)
    shutil.copytree(template, here)
    os.chdir(here)


def alter_record(draw: random.Random) -> tuple[str, bool]:
    """Alter one record; how, and whether its own hash betrays it."""
    path = draw.choice(sorted(Path("results").glob("*/*/record.json")))
    told = json.loads(path.read_bytes())
    was, how = copy.deepcopy(told), f"{path}: {mutate(told, draw)}"
    if draw.random() < 0.1:
        path.write_text("[" * DEEP + "]" * DEEP, encoding="utf-8")
        return f"{path}: deep", True
    text = json.dumps(told, indent=2, sort_keys=True)
    if draw.random() < 0.5:
        try:
            record = parse_record(text.encode())
            record["id"] = record_id(record)
            path.write_text(record_text(record), encoding="utf-8")
            return f"{how} (hashed anew)", False
        except (ValueError, UnicodeError, KeyError, TypeError):
            pass
    path.write_bytes(text.encode(errors="surrogatepass"))
    return how, told != was


def check_verbs(case: str, altered: bool, draw: random.Random) -> list[str]:
    """The audit and two other verbs."""

    def audit() -> None:
        assert run(["audit"], case).code or not altered, f"the audit passes: {case}"

    failed = failures(audit)
    for verb in draw.sample(sorted(VERBS.keys() - {"audit"}), 2):
        failed += failures(functools.partial(run, VERBS[verb], case))
    return failed


def alter_tree(draw: random.Random) -> tuple[str, bool]:
    """Put something in the place of a file, or next to it; how, and whether something recorded was altered."""
    files = [path for top in ("results", "data/raw") for path in sorted(Path(top).rglob("*")) if path.is_file()]
    path = draw.choice(files)
    kind = draw.choice(sorted(HARMS))
    if kind.startswith("new"):
        path = path.with_name(draw.choice(("x", "a\nb", "\udcff", "ü" * 100, ".hidden", "record.json.bak", "-rf", "…")))
    elif kind != "truncated":
        path.unlink()
    HARMS[kind](path)
    return f"{kind}: {str(path)!r}", not kind.startswith("new")


def sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**40)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


HARMS: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: None,
    "truncated": truncate,
    "empty": lambda path: path.touch(),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "other json": lambda path: path.write_text(json.dumps(NONSENSE[len(path.name) % 11]), encoding="utf-8"),
    "deep json": lambda path: path.write_text("[" * 100_000, encoding="utf-8"),
    "folder": lambda path: (path / "inner").mkdir(parents=True),
    "fifo": lambda path: os.mkfifo(path),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "sparse": sparse,
    "new file": lambda path: path.write_text("x", encoding="utf-8"),
    "new fifo": lambda path: os.mkfifo(path),
    "new folder": lambda path: path.mkdir(),
    "new loop": lambda path: path.symlink_to("."),
    "new sparse": sparse,
}


@pytest.mark.parametrize("group", range(4))
@pytest.mark.parametrize(("what", "seed", "alter"), [("record", 1000, alter_record), ("tree", 2000, alter_tree)])
def test_altered_results(
    toy: Path,
    tmp_path: Path,
    group: int,
    what: str,
    seed: int,
    alter: Callable[[random.Random], tuple[str, bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """200 records and 200 trees."""
    monkeypatch.chdir(tmp_path)
    failed = []
    for number in range(group * GROUP, (group + 1) * GROUP):
        draw = random.Random(seed + number)
        fresh(toy, tmp_path / "project")
        how, altered = alter(draw)
        failed += check_verbs(f"{what} {number}: {how}", altered, draw)
    if failed:
        pytest.fail("\n\n".join(failed), pytrace=False)


@pytest.mark.parametrize("group", range(4))
def test_damaged_files(finished: Path, tmp_path: Path, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file of a project in which every verb has run, damaged; the verbs that read, and two that write."""
    monkeypatch.chdir(tmp_path)
    files = sorted(path.relative_to(finished) for path in finished.rglob("*") if path.is_file())
    harms = [kind for kind in HARMS if not kind.startswith("new")]
    fresh(finished, tmp_path / "project")
    verbs = {name: words() for name, words in READ_ONLY.items()} | {name: WRITING[name].words() for name in WRITING}
    writing = sorted(WRITING.keys() - READ_ONLY.keys() - {"replay", "track"})  # which take many seconds
    failed = []
    for number in range(group, len(files), 4):
        draw, path = random.Random(3000 + number), files[number]
        kind = draw.choice(harms)
        for writes in (None, *draw.sample(writing, 2)):
            fresh(finished, tmp_path / "project")
            if writes:
                for made in WRITING[writes].makes:
                    shutil.rmtree(made, ignore_errors=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind != "truncated":
                path.unlink(missing_ok=True)
            if kind != "truncated" or path.exists():
                HARMS[kind](path)
            for verb in [writes] if writes else READ_ONLY:
                failed += failures(functools.partial(run, verbs[verb], f"damaged file {number}: {kind}: {path}"))
    if failed:
        pytest.fail("\n\n".join(failed), pytrace=False)
