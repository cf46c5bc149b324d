"""The state of the code and of the machine, as facts for a record."""

import ast
import functools
import hashlib
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from gessl.errors import UserError
from gessl.layout import LOCK
from gessl.notices import say
from gessl.records.git import LINK, SUBMODULE, GitError, Objects, TreeEntry, git, place_in_repository
from gessl.records.loaded import require_loaded_from_sources
from gessl.records.present import FILE, blobs_in, digest, hashes_in, is_source, sources_hash
from gessl.records.steps import STEPS, StepType

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "safetensors", "pydantic")
_SUFFIXES = EXTENSION_SUFFIXES + SOURCE_SUFFIXES + BYTECODE_SUFFIXES  # in Python's order
STEM = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
TRACKED = ("gessl", "config", "workflow", "Snakefile")  # what, besides the settings, may decide a result


@functools.cache
def code_state() -> dict[str, str | None]:
    """What a record says of the code that runs.

    `commit` is that of git, `dirty` the hash of what differs from it (None when nothing does), `sources` one hash of
    all files of the package, `rules` one of the workflow's rules and configuration. Commit and difference are None
    where the package is not under version control; where git refuses to tell, `git` says why.

    Raises:
        UserError: what runs is not made of these sources.
    """
    require_loaded_from_sources(PACKAGE)
    hashes = hashes_in(PACKAGE.parent, TRACKED)
    state = {"commit": None, "dirty": None, **states(hashes)}
    try:
        commit, held = committed_here(PACKAGE.parent)
    except GitError as error:
        say(f"{error}; what is made now names no commit")
        return state | {"git": str(error)}
    return state | {"commit": commit, "dirty": difference(PACKAGE.parent, held, commit)} if commit else state


def states(hashes: Mapping[PurePath, str]) -> dict[str, str | None]:
    """One hash for the package, and one for what else of `TRACKED` there is, of the SHA-256 of their files."""
    sources = {path.relative_to(PACKAGE.name): text for path, text in hashes.items() if path.parts[0] == PACKAGE.name}
    rules = {path: text for path, text in hashes.items() if path.parts[0] != PACKAGE.name}
    return {"sources": sources_hash(sources), "rules": sources_hash(rules) if rules else None}


def committed_here(home: Path) -> tuple[str | None, dict[PurePosixPath, TreeEntry]]:
    """The commit that `home` is at, and the files of `TRACKED` in it; None where `home` is no part of it.

    Raises:
        GitError: git refuses to tell.
    """
    below = place_in_repository(home)
    if below is None:
        return None, {}
    commit = git(home, "rev-parse", "--verify", "--quiet", "HEAD").decode().strip()
    with Objects(home) as objects:
        held = {path: entry for path, entry in objects.files(commit, TRACKED, below).items() if is_source(path)}
    ours = PurePosixPath(PACKAGE.name, "__init__.py") in held  # else a repository around an installed copy
    return (commit, held) if ours else (None, {})


def difference(home: Path, held: Mapping[PurePosixPath, TreeEntry], commit: str) -> str | None:
    """Hash of what differs between the files that a commit holds and those in `home`, or None when nothing does."""
    committed = {
        path: TreeEntry(entry.mode if entry.mode in (LINK, SUBMODULE) else FILE, entry.blob)
        for path, entry in held.items()
    }
    there = blobs_in(home, TRACKED, commit)
    lines = [
        f"{path} {committed.get(path)} {there.get(path)}\n"
        for path in sorted({*committed, *there})
        if committed.get(path) != there.get(path)
    ]
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest() if lines else None


def environment() -> dict[str, Any]:
    """Lock hash, interpreter, library versions, processor, accelerator and thread count."""
    facts = {"lock": digest(LOCK, link=False)} | _machine()
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
    (a method of a registry) must be named. Templates that lie next to a module count with it.

    Raises:
        ValueError: no such module in this package.
        UserError: Python would import something else than the source of that name.
    """
    for name in modules:
        if _source(name) is None:
            raise ValueError(f"{name}: no such module in {PACKAGE.name}")
    found: set[Path] = set()
    waiting, seen = list(modules), set(modules)
    while waiting:
        name = waiting.pop()
        source = _source(name)
        if source is None:
            continue
        found.add(source)
        # importing a module runs the packages around it
        news = {*_imported(source, name), name.rpartition(".")[0]} - seen
        seen |= news
        waiting += news
    return _hash_sources({*found, *_templates(found)})


def step_fingerprint(step: str, config: dict[str, Any]) -> str | None:
    """`fingerprint` of the sources that a step with these settings uses; None for what no step of the workflow makes.

    Raises:
        ValueError: the settings name a base method, a protocol or a reader that is not in this package.
    """
    kind = STEPS.get(step)
    return fingerprint(kind.module, *_plug_ins(kind, config)) if kind and kind.module else None


def _plug_ins(step: StepType, config: Mapping[str, Any]) -> Iterator[str]:
    """The modules that a step's settings name or need: a base method, a protocol, the reader of a data set."""
    yield from (module for key, module in step.more if key in config)
    name: Any = config
    for key in filter(None, step.key.split(".")):
        name = name.get(key) if isinstance(name, Mapping) else None
    if name is None or not step.key:
        return
    stem = name.replace("/", "__").replace("-", "_") if isinstance(name, str) else ""
    if not STEM.fullmatch(stem):  # a path leads elsewhere
        raise ValueError(f"{str(name)[:20]!r}: no name of a plug-in in gessl.{step.plug_ins}")
    yield f"gessl.{step.plug_ins}.{stem}"


def _source(name: str) -> Path | None:
    """Where Python finds a module of this package, in its own order: folder before file, binary before source."""
    if name.partition(".")[0] != PACKAGE.name:
        return None
    path = PACKAGE.parent.joinpath(*name.split("."))
    if not path.parent.is_dir():  # most names: what a module holds
        return None
    inside = [file for suffix in _SUFFIXES if (file := path / f"__init__{suffix}").is_file()]
    siblings = [file for suffix in _SUFFIXES if (file := path.with_name(path.name + suffix)).is_file()]
    if siblings and path.is_dir():
        raise UserError(f"{path}: a folder with the name of {siblings[0].name} next to it; move one of them away")
    found = next(iter(inside + siblings), None)
    if found and found.suffix != ".py":
        raise UserError(f"{found}: Python imports it as {name}, and it is no source; move it away")
    return found


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
    return {path for path in found if is_source(path.relative_to(PACKAGE)) and path.suffix not in {".py", ".pyc"}}


def _hash_sources(paths: Iterable[Path]) -> str:
    """Of what the paths lead to, for that is what Python runs."""
    hashes = {path.relative_to(PACKAGE): digest(path, link=False) for path in paths}
    return sources_hash({path: text for path, text in hashes.items() if text is not None})
