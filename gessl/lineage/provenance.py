"""The state of the code and of the machine, as facts for a record."""

import ast
import functools
import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

from gessl.files import sha256_file
from gessl.layout import LOCK

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "safetensors", "pydantic")
STEPS = {
    "fetch": "gessl.data.fetch",
    "prepare": "gessl.data.prepare",
    "tasks": "gessl.tasks.draw",
    "pretrain": "gessl.training.pretrain",
    "evaluate": "gessl.evaluation.step",
    "report": "gessl.report.step",
}
"""The module that makes each step, as in the workflow's rules: what it imports re-runs the step."""
TRACKED = ("gessl", "config", "workflow", "Snakefile")  # what, beside the settings, may decide a result


def _git(*arguments: str) -> bytes | None:
    command = ["git", "-C", str(PACKAGE.parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None  # an installed copy without git: the hash of the sources still tells the code


def is_source(path: PurePath) -> bool:
    """Whether a path in the package is that of a source, or a template: no cache of Python's, no editor's hidden file.

    No commit holds the latter, and what was made beside one is still what its commit makes.
    """
    return not any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def _package_files() -> list[Path]:
    return [path for path in PACKAGE.rglob("*") if path.is_file() and is_source(path.relative_to(PACKAGE))]


def _hash_sources(paths: Iterable[Path]) -> str:
    return sources_hash({path.relative_to(PACKAGE): sha256_file(path) for path in paths})


def sources_hash(hashes: Mapping[PurePath, str]) -> str:
    """One hash for the SHA-256 of sources, by their paths in the package. Records hold it: it must stay what it is."""
    digest = hashlib.sha256()
    for path in sorted(hashes):
        digest.update(f"{path.as_posix()} {hashes[path]}\n".encode())
    return digest.hexdigest()


@functools.cache
def code_state() -> dict[str, str | None]:
    """Git commit, hash of the uncommitted difference to it (None when clean), hash of all files of the package.

    Commit and difference are None where the package is not under version control.
    """
    ours = _git(
        "ls-files", "--error-unmatch", f"{PACKAGE.name}/__init__.py"
    )  # not a repository around an installed copy
    commit = _git("rev-parse", "HEAD") if ours else None
    return {
        "commit": commit.decode().strip() if commit else None,
        "dirty": _difference() if commit else None,
        "sources": _hash_sources(_package_files()),
    }


def _difference() -> str | None:
    """Hash of changed and of new files, or None when there are none."""
    changed = _git("diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--", *TRACKED) or b""
    new = (_git("ls-files", "-z", "--others", "--exclude-standard", "--", *TRACKED) or b"").split(b"\0")
    digest = hashlib.sha256(changed)
    for name in filter(None, new):
        digest.update(name + b" " + sha256_file(PACKAGE.parent / os.fsdecode(name)).encode() + b"\n")
    return digest.hexdigest() if changed or any(new) else None


def environment() -> dict[str, Any]:
    """Lock hash, interpreter, library versions, processor, accelerator and thread count."""
    facts = {"lock": sha256_file(LOCK) if LOCK.is_file() else None} | _machine()
    torch = sys.modules.get("torch")  # only steps that computed with torch pay for asking it
    if torch is not None:
        cuda = torch.cuda.is_available()
        facts["threads"] = torch.get_num_threads()
        facts["deterministic"] = torch.are_deterministic_algorithms_enabled()
        facts["accelerator"] = torch.cuda.get_device_name() if cuda else None
        facts["cuda"] = torch.version.cuda if cuda else None
        facts["cudnn"] = torch.backends.cudnn.version() if cuda else None
    return facts


@functools.cache
def _machine() -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "libraries": versions,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@functools.cache
def fingerprint(*modules: str) -> str:
    """Hash of the sources that `modules` (say "gessl.training.loop") import from this package, themselves included.

    Goes into a rule's params: editing what a step uses re-runs it, editing anything else (or committing) does not.
    Imports are read from the sources, wherever they stand in them; a module that is only found by name at run time
    (a method of a registry) must be named. Templates that lie beside a module count with it.

    Raises:
        ValueError: no such module in this package.
    """
    found: dict[str, Path] = {}
    waiting = list(modules)
    for name in waiting:
        if _source(name) is None:
            raise ValueError(f"{name}: no such module in {PACKAGE.name}")
    while waiting:
        name = waiting.pop()
        source = _source(name)
        if name in found or source is None:
            continue
        found[name] = source
        waiting += _imported(source, name)
        waiting.append(name.rpartition(".")[0])  # importing a module runs the packages around it
    return _hash_sources({*found.values(), *_templates(found.values())})


def step_fingerprint(step: str, config: dict[str, Any]) -> str | None:
    """`fingerprint` of the sources that a step with these settings uses; None for what is no step of the workflow.

    Raises:
        ValueError: the settings name a base method that is not in this package.
    """
    if step not in STEPS:
        return None
    method = config.get("method_name") if step == "pretrain" else None  # the one module that is found by its name
    return fingerprint(STEPS[step], *([f"gessl.methods.{method}"] if method else []))


def _source(name: str) -> Path | None:
    if name.partition(".")[0] != PACKAGE.name:
        return None
    path = PACKAGE.parent.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imported(source: Path, name: str) -> tuple[str, ...]:
    package = name if source.name == "__init__.py" else name.rpartition(".")[0]
    return _imports(source.read_bytes(), package)


@functools.cache  # the steps of all base methods import most of the package: parsed once
def _imports(text: bytes, package: str) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(names)


def _templates(sources: Iterable[Path]) -> set[Path]:
    """What is not Python in the folders of `sources`, and in their sub-folders that are not packages."""
    found: set[Path] = set()
    for folder in {source.parent for source in sources if source.name != "__init__.py"}:
        plain = (sub for sub in folder.iterdir() if sub.is_dir() and not any(sub.glob("*.py")))
        found.update(path for level in (folder, *plain) for path in level.iterdir() if path.is_file())
    return {path for path in found if path.suffix not in {".py", ".pyc"}}
