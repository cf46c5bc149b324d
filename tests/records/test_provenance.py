import importlib.util
import os
import py_compile
import shutil
import subprocess
import sys
from dataclasses import asdict
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from py_compile import PycInvalidationMode
from types import SimpleNamespace

import pytest

from gessl.data.registry import dataset, dataset_names
from gessl.errors import UserError
from gessl.methods import method_names
from gessl.records import provenance
from gessl.records.provenance import code_state, environment, fingerprint, step_fingerprint
from gessl.records.steps import STEPS
from tests.conftest import ROOT

FILES = {
    "__init__.py": "",
    "files.py": "import os\n",
    "unused.py": "",
    "net/__init__.py": "from gessl.net.base import f\n",
    "net/base.py": "from ..files import g\n",
    "net/deep.py": "from . import lazy\nfrom .sub import x\n",
    "net/lazy.py": "def f():\n    import gessl.tail\n",
    "net/sub/__init__.py": "x = 1\n",
    "net/other.py": "",
    "tail.py": "from gessl.net import base\n",
    "page/__init__.py": "",
    "page/html.py": "import json\n",
    "page/style.css": "p {}",
    "page/templates/page.html": "<p>",
}
USED = {
    "__init__.py",
    "net/__init__.py",
    "net/base.py",
    "net/deep.py",
    "net/lazy.py",
    "net/sub/__init__.py",
    "tail.py",
    "files.py",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "gessl"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(provenance, "PACKAGE", root)
    monkeypatch.setattr(provenance, "fingerprint", provenance.fingerprint.__wrapped__)
    return root


@pytest.mark.parametrize("name", FILES)
def test_fingerprint_changes_with_what_is_imported_and_with_nothing_else(package: Path, name: str) -> None:
    before = {module: provenance.fingerprint(module) for module in ("gessl.net.deep", "gessl.page.html")}
    (package / name).write_text(FILES[name] + "\n", encoding="utf-8")
    after = {module: provenance.fingerprint(module) for module in before}
    changed = {module for module in before if before[module] != after[module]}
    expected = {"gessl.net.deep"} & ({"gessl.net.deep"} if name in USED else set())
    if name.startswith("page/") or name == "__init__.py":
        expected |= {"gessl.page.html"}
    assert changed == expected


def test_fingerprint_of_several_modules_covers_each(package: Path) -> None:
    both = provenance.fingerprint("gessl.net.other", "gessl.unused")
    assert both == provenance.fingerprint("gessl.unused", "gessl.net.other")
    for name in ("unused.py", "net/other.py"):
        (package / name).write_text("y = 2\n", encoding="utf-8")
        assert both != (both := provenance.fingerprint("gessl.net.other", "gessl.unused"))


def test_fingerprint_of_an_unknown_module_is_an_error(package: Path) -> None:
    with pytest.raises(ValueError, match=r"gessl\.none: no such module"):
        provenance.fingerprint("gessl.none")
    with pytest.raises(ValueError, match="os: no such module"):
        provenance.fingerprint("os")


STRANGE = {
    "a folder that Python takes first": ("net/base/__init__.py", r"gessl/net/base: a folder with the name of base\.py"),
    "a folder of data": ("net/base/x.txt", r"gessl/net/base: a folder with the name of base\.py"),
    "a binary next to a source": ("net/base.abi3.so", r"base\.abi3\.so: Python imports it as gessl\.net\.base"),
    "a binary of this Python": (f"net/base{EXTENSION_SUFFIXES[0]}", "Python imports it as gessl.net.base"),
    "a binary package": (f"net/sub/__init__{EXTENSION_SUFFIXES[-1]}", "Python imports it as gessl.net.sub"),
    "bytecode without its source": ("net/late.pyc", r"late\.pyc: Python imports it as gessl\.net\.late"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_python_would_import_in_place_of_a_source_is_refused(package: Path, name: str) -> None:
    (package / "net/lazy.py").write_text("import gessl.net.late\n", encoding="utf-8")
    provenance.fingerprint("gessl.net.deep")
    path, message = STRANGE[name]
    (package / path).parent.mkdir(exist_ok=True)
    (package / path).write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        provenance.fingerprint("gessl.net.deep")


@pytest.mark.parametrize("name", ["net/base.pyc", "net/__pycache__/base.cpython-311.pyc.123", "page/.style.css.swp"])
def test_what_python_does_not_read_changes_no_fingerprint(package: Path, name: str) -> None:
    before = [provenance.fingerprint(module) for module in ("gessl.net.deep", "gessl.page.html")]
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_text("", encoding="utf-8")
    assert before == [provenance.fingerprint(module) for module in ("gessl.net.deep", "gessl.page.html")]


LOADED = """
import sys
from pathlib import Path

from gessl.errors import UserError
from gessl.records.loaded import require_loaded_from_sources
from toy.net import base

try:
    require_loaded_from_sources(Path(sys.argv[1]))
    print("passed", base.x)
except UserError as error:
    print(error)
"""


def load(package: Path) -> str:
    """What `require_loaded_from_sources` says in a process that runs the package."""
    command = [sys.executable, "-c", LOADED, str(package)]
    environment = os.environ | {"PYTHONPATH": f"{package.parent}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=environment)
    return done.stdout.strip()


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    package = tmp_path / "toy"
    for name, text in {"__init__.py": "", "net/__init__.py": "", "net/base.py": "x = 1\n"}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    return package


@pytest.mark.parametrize("mode", PycInvalidationMode)
def test_bytecode_that_its_source_does_not_give_is_refused(toy: Path, mode: PycInvalidationMode) -> None:
    source, other = toy / "net/base.py", toy / "net/other.py"
    cached = Path(importlib.util.cache_from_source(str(source)))
    py_compile.compile(str(source), str(cached), invalidation_mode=mode)
    assert load(toy) == "passed 1"
    honest, facts = cached.read_bytes(), source.stat()
    other.write_text("x = 2\n", encoding="utf-8")
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    py_compile.compile(str(other), str(cached), invalidation_mode=mode)
    cached.write_bytes(honest[:16] + cached.read_bytes()[16:])
    assert load(toy).startswith(f"{cached}: not the bytecode of base.py, but runs in its place; move {cached} away")
    cached.write_bytes(honest)
    source.write_text("x = 33\n", encoding="utf-8")  # outdated, which Python knows, unless it was set not to look
    assert load(toy).startswith("passed 33" if mode is not PycInvalidationMode.UNCHECKED_HASH else str(cached))


def test_a_module_without_a_source_is_refused(toy: Path) -> None:
    source = toy / "net/base.py"
    py_compile.compile(str(source), str(toy / "net/base.pyc"))
    assert load(toy) == "passed 1"
    source.unlink()
    assert load(toy).startswith(f"{toy}/net/base.pyc: runs in place of a source of toy; move it")


def test_fingerprint_of_this_package_sees_what_python_imports() -> None:
    """The oracle: what a fresh interpreter has loaded after the import."""
    code = (
        "import sys, gessl.records.record; "
        "print(*[m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'gessl'])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    ).stdout.split()
    found: list[Path] = []
    original = provenance._hash_sources
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "_hash_sources", lambda paths: (found.extend(paths), original(paths))[1])
        fingerprint.__wrapped__("gessl.records.record")
    assert {Path(name) for name in loaded} <= set(found)


def test_a_steps_fingerprint_is_of_its_module_and_of_the_plug_ins_that_its_settings_name() -> None:
    modules = {verb: step.module for verb, step in STEPS.items() if step.module}
    for step, module in modules.items():
        assert step_fingerprint(step, {}) == fingerprint(module)
    for step in ("tasks", "evaluate"):
        asked = step_fingerprint(step, {"protocol": "knn/5nn-euclid"})
        assert asked == fingerprint(modules[step], "gessl.protocols.knn__5nn_euclid") != fingerprint(modules[step])
    elsewhere = step_fingerprint("evaluate", {"encoder": {}})
    assert elsewhere == fingerprint(modules["evaluate"], "gessl.evaluation.foreign") != fingerprint(modules["evaluate"])
    found = {name: step_fingerprint("pretrain", {"method_name": name}) for name in method_names()}
    assert found["simclr"] == fingerprint(modules["pretrain"], "gessl.methods.simclr")
    assert len(set(found.values())) > 1
    glyphs = {"dataset": {"reader": "glyphs"}}
    assert step_fingerprint("prepare", glyphs) == fingerprint(modules["prepare"], "gessl.data.readers.glyphs")
    assert step_fingerprint("fetch", glyphs) == fingerprint(modules["fetch"]), "it reads no image"
    assert step_fingerprint("other", {}) is None
    with pytest.raises(ValueError, match=r"gessl\.methods\.none: no such module"):
        step_fingerprint("pretrain", {"method_name": "none"})


@pytest.mark.parametrize(
    ("name", "stale"), [("mine", set()), ("stl10_binary", {"stl10"}), ("_cifar", {"cifar10", "cifar100", "cifar-fs"})]
)
def test_a_reader_is_part_of_the_data_sets_that_name_it_alone(
    name: str, stale: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(ROOT / "gessl", tmp_path / "gessl", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    monkeypatch.setattr(provenance, "fingerprint", provenance.fingerprint.__wrapped__)
    entries = {name: {"dataset": asdict(dataset(name))} for name in dataset_names()}

    def fingerprints() -> dict[str, str | None]:
        steps = {step: step_fingerprint(step, {}) for step in STEPS if step != "prepare"}
        return steps | {name: step_fingerprint("prepare", entry) for name, entry in entries.items()}

    before = fingerprints()
    with open(copy / f"data/readers/{name}.py", "a", encoding="utf-8") as reader:
        reader.write("# edited\n")
    after = fingerprints()
    assert {name for name in before if before[name] != after[name]} == stale


@pytest.mark.parametrize(
    ("edited", "outdated"),
    [("encoders/layouts.py", {"theirs"}), ("bilevel/settings.py", {"pretrain", "report"})],
)
def test_scores_depend_on_neither_foreign_encoders_nor_training(
    edited: str, outdated: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(ROOT / "gessl", tmp_path / "gessl", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    monkeypatch.setattr(provenance, "fingerprint", provenance.fingerprint.__wrapped__)

    def fingerprints() -> dict[str, str | None]:
        steps = {step: step_fingerprint(step, {}) for step in STEPS}
        return steps | {"theirs": step_fingerprint("evaluate", {"encoder": {}})}

    before = fingerprints()
    with open(copy / edited, "a", encoding="utf-8") as source:
        source.write("# one more\n")
    after = fingerprints()
    assert {name for name in before if before[name] != after[name]} == outdated


def _git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def _state() -> dict[str, str | None]:
    return code_state.__wrapped__()


def test_code_state_without_git_still_hashes_the_sources(package: Path) -> None:
    before = _state()
    assert before["commit"] is None
    assert before["dirty"] is None
    (package / "page/style.css").write_text("p { color: red }", encoding="utf-8")
    assert _state()["sources"] != before["sources"]


def test_code_state_tells_changed_and_new_files(package: Path) -> None:
    root = package.parent
    _git(root, "init", "-q")
    _git(root, "add", "gessl")
    _git(root, "commit", "-q", "-m", "first")
    clean = _state()
    assert clean["commit"] is not None
    assert clean["dirty"] is None
    (package / "new.py").write_text("x = 1\n", encoding="utf-8")
    new = _state()
    (package / "new.py").write_text("x = 2\n", encoding="utf-8")
    newer = _state()
    (package / "new.py").unlink()
    (package / "files.py").write_text("changed\n", encoding="utf-8")
    changed = _state()
    assert len({state["dirty"] for state in (clean, new, newer, changed)}) == 4
    assert {state["commit"] for state in (new, newer, changed)} == {clean["commit"]}
    (package / "files.py").write_text(FILES["files.py"], encoding="utf-8")
    assert _state() == clean


def test_repository_around_an_installed_copy_is_not_ours(package: Path) -> None:
    root = package.parent
    (root / "readme").write_text("x", encoding="utf-8")
    _git(root, "init", "-q")
    _git(root, "add", "readme")
    _git(root, "commit", "-q", "-m", "another project")
    assert _state()["commit"] is None


def test_environment_asks_torch_only_once_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert "threads" not in environment()
    torch = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: True, get_device_name=lambda: "GPU"),
        get_num_threads=lambda: 3,
        are_deterministic_algorithms_enabled=lambda: True,
        version=SimpleNamespace(cuda="13.0"),
        backends=SimpleNamespace(cudnn=SimpleNamespace(version=lambda: 91)),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    facts = environment()
    asked = {key: facts[key] for key in ("threads", "deterministic", "accelerator", "cuda", "cudnn")}
    assert asked == {"threads": 3, "deterministic": True, "accelerator": "GPU", "cuda": "13.0", "cudnn": 91}


def test_environment_names_lock_and_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance, "_machine", provenance._machine.__wrapped__)
    assert environment()["lock"] is None
    Path("requirements.lock").write_text("", encoding="utf-8")  # a long process may see it change
    facts = environment()
    assert facts["lock"] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert set(facts["libraries"]) == set(provenance.LIBRARIES)
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
