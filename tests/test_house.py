"""The plan of the house, held by tests: who may import whom, and what is banned where."""

import ast
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "gessl"
# from the ground up; a room imports from its own floor and those below
FLOORS = [
    floor.split()
    for floor in (
        "advice aggregates allocator documents errors files home identity layout nodes notices npz optimizer power rng"
        " scalars settings sigma statistics typed",
        "records nets cluster tables",
        "data encoders methods protocols registration",
        "bilevel",
        "training evaluation report tracking",
        "audit",
        "grid",
        "api",
        "verbs data_verbs",
        "cli",
        "__main__",
    )
]
CORE = [*itertools.chain(*FLOORS[:4]), "training", "evaluation"]


def sources(room: str = "") -> list[Path]:
    path = PACKAGE / room if room else PACKAGE
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """Who imports whom."""
    return grimp.build_graph("gessl", include_external_packages=True, cache_dir=None)


def test_imports_run_downwards(imports: grimp.ImportGraph) -> None:
    floors = [{f"gessl.{room}" for room in floor} for floor in FLOORS]
    assert set().union(*floors) == imports.find_children("gessl")
    layers = [grimp.Layer(*floor, independent=False) for floor in reversed(floors)]
    assert not imports.find_illegal_dependencies_for_layers(layers=layers)


def test_the_engine_knows_no_method(imports: grimp.ImportGraph) -> None:
    """It is handed a learner; what it takes from `gessl.methods` are types of data and names of parameters."""
    for path in sources("bilevel"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & {"Method", "Guided"}, path
    rooms = imports.find_descendants("gessl.bilevel")
    taken = set[str]().union(*map(imports.find_modules_directly_imported_by, rooms))
    assert "gessl.nets.encoder" not in taken
    assert {name for name in taken if name.startswith("gessl.methods")} <= {
        "gessl.methods.base",
        "gessl.methods.learner",
        "gessl.methods._guided",
    }


def test_each_outside_system_has_one_door(imports: grimp.ImportGraph) -> None:
    doors = {"mlflow": {"tracking"}, "pydantic": {"grid"}, "snakemake": set[str](), "dvc": set[str]()}
    for system, door in doors.items():
        importers = imports.find_modules_that_directly_import(system) if system in imports.modules else ()
        assert {name.split(".")[1] for name in importers} == door, system


def test_the_training_core_imports_on_a_bare_gpu_machine() -> None:
    """There are torch, torchvision, numpy, scipy, scikit-learn, pandas, yaml, safetensors and tqdm; nothing more."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for room in CORE
        for path in sources(room)
    ]
    code = f"""
import importlib, sys
for name in ("pydantic", "mlflow", "dvc", "snakemake", "matplotlib", "jinja2", "timm"):
    sys.modules[name] = None
for name in {modules!r}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


def test_gpu_check_asks_for_torch_and_torchvision_only() -> None:
    """Its tests and benchmarks are collected and imported where nothing else of ours is installed."""
    code = """
import sys
for name in ("yaml", "safetensors", "tqdm", "pandas", "pydantic", "hypothesis", "mlflow", "dvc", "snakemake", "jinja2"):
    sys.modules[name] = None
import pytest
import benchmarks.bilevel, benchmarks.throughput
files = ["tests/bilevel", "tests/nets", "tests/methods/test_learner.py", "tests/data/test_views.py"]
files += ["tests/data/test_feed.py"]
sys.exit(pytest.main(["-o", "addopts=", "-m", "gpu", "--collect-only", "-q", *files]))
"""
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_a_gpu_gives_the_hypergradient_of_the_cpu" in done.stdout


BANNED = [
    ("methods", r"\.detach\(\)|no_grad\(", "a method that stops gradients makes hyper-gradients silently wrong"),
    ("", r"torch\.trace\(", "its compiled second derivative was wrong; use diagonal().sum()"),
    ("", r"yaml\.load\(|pickle\.loads?\(|weights_only=False|allow_pickle=True", "executes what it reads"),
    ("bilevel", r"\.data\b", "no in-place tricks on weights"),
    ("", r"utils\.checkpoint\b", "recomputation under functional_call silently uses other weights; replay instead"),
    ("", r"GradScaler|float16\b(?<!bfloat16)", "second-order terms overflow in float16; bfloat16 needs no scaler"),
]


@pytest.mark.parametrize(("room", "pattern", "why"), BANNED, ids=[why[:30] for *_, why in BANNED])
def test_traps_that_were_paid_for_stay_shut(room: str, pattern: str, why: str) -> None:
    for path in sources(room):
        # the moving average of a commit, and what calls a method's functions for the engine
        if path not in (PACKAGE / "methods/_teacher.py", PACKAGE / "methods/learner.py"):
            code = ast.unparse(ast.parse(path.read_text(encoding="utf-8")))  # without comments
            assert not re.search(pattern, code), f"{path}: {why}"


def calls_in_the_locales_encoding(path: Path) -> Iterator[int]:
    """Lines that read or write text, or talk to a process, without saying that it is UTF-8."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = {keyword.arg for keyword in node.keywords}
            process = name in {"run", "Popen", "check_output"} and given & {"text", "universal_newlines"}
            if (name in {"read_text", "write_text"} or process) and "encoding" not in given:
                yield node.lineno


@pytest.mark.parametrize("room", ["gessl", "tests", "benchmarks", "studies"])
def test_no_text_depends_on_the_locale(room: str) -> None:
    """`open` is ruff's matter (PLW1514), which cannot tell a `Path` that comes from elsewhere."""
    for path in sorted((ROOT / room).rglob("*.py")):
        assert not list(calls_in_the_locales_encoding(path)), path


def test_no_process_is_ended_by_its_name() -> None:
    """It may be somebody else's: end what you started, by its number or its group."""
    rooms = ("tests", "benchmarks", "studies")
    places = [path for room in rooms for path in (ROOT / room).rglob("*.py")] + [*(ROOT / "workflow").rglob("*")]
    for path in (*sources(), *places, ROOT / "Makefile", ROOT / ".ci/run"):
        if path.is_file() and path.suffix != ".pyc" and path != Path(__file__):
            assert not re.search(r"pkill|killall|fuser", path.read_text(encoding="utf-8")), path


def test_the_lock_has_hashes_and_no_addresses() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock + (ROOT / "benchmarks/requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(r"^([a-z0-9][\w.-]*)==", lock, flags=re.M)
    assert len(pins) > 100
    assert lock.count("--hash=sha256:") >= len(pins)
    assert re.search(r"^torch==2\.15\.0 ", lock, flags=re.M)
    assert re.search(r"^torchvision==0\.29\.2 ", lock, flags=re.M)
