"""Advice never destroys: deleting is advised only for what a step makes again, and only by one module."""

import ast
import inspect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gessl import advice
from tests.conftest import ROOT

# what steps make again from other files, whatever happens to it
DERIVED = [
    "results/runs/digits-simclr-s0",
    "results/data/digits",
    "results/report/a grid/tables",
    "work/digits-simclr-s0",
    "work/grids/x.json",
]
# what people wrote, placed, or named themselves, or holds such things
OWN = [
    *(".", "data", "data/raw", "data/raw/photos", "data/raw/photos/.DS_Store", "data/raw/photos.dvc"),
    *("results", "results/notes.txt", "results/runs", "work", "config", "config/config.yaml", "/home/me/encoder"),
    *(
        "results/../data/raw/photos",
        "results/runs/../../data/raw/photos",
        "work/..",
        "workshop/mine",
        "../results/runs/x",
    ),
]
SENTENCES = [
    function
    for name, function in inspect.getmembers(advice, inspect.isfunction)
    if name != "is_derived" and not name.startswith("_")
]
DESTROYS = re.compile(r"\b(delete|remove|rm|overwrite|erase|wipe|discard|clear)\b", flags=re.I)


def sayings(function: object, path: str) -> Iterator[str]:
    """Every sentence of a function of the module about `path`."""
    choices = {"Path": [Path(path)], "Path | None": [Path(path), None], "str": ["do it again", ""]}
    parameters = inspect.signature(function, eval_str=False).parameters.values()  # type: ignore[arg-type]
    kinds = [inspect.formatannotation(parameter.annotation).removeprefix("pathlib.") for parameter in parameters]
    for values in itertools.product(*(choices[kind] for kind in kinds)):
        yield function(*values)  # type: ignore[operator]


@pytest.mark.parametrize("function", SENTENCES, ids=lambda function: function.__name__)
@pytest.mark.parametrize("path", [*DERIVED, *OWN])
def test_only_what_is_derived_is_ever_to_be_deleted(function: object, path: str, tmp_path: Path) -> None:
    for name in (path, str(Path.cwd() / path)):
        for sentence in sayings(function, name):
            for doomed in re.findall(r"delete (.*?) and", sentence):
                assert path in DERIVED, sentence
                assert doomed == name or Path(doomed).parent == Path(name), sentence
            assert not DESTROYS.search(sentence.replace(f"delete {name}", "")), sentence


def test_what_is_derived_is_named_for_deletion() -> None:
    for path in map(Path, DERIVED):
        assert advice.remake(path, "go on") == f"delete {path} and go on"
        assert advice.redo(path) == f"delete {path}/record.json and run its step again"
    assert advice.redo(Path("data/raw/photos")) == "move data/raw/photos/record.json away and run its step again"


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """The texts in a source that people may read: literals of several words, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if " " in text and id(node) not in docstrings:
            yield node.lineno, text


def test_no_other_message_tells_to_delete_anything() -> None:
    for path in sorted((ROOT / "gessl").rglob("*.py")):
        if path != Path(advice.__file__):
            for line, text in messages(path):
                assert not DESTROYS.search(text), f"{path}:{line}: {text!r} belongs into gessl/advice.py"


COPIES = {  # in the documentation: of what a step makes again, or of copies
    "docs/audit.md": ["delete the record that it names"],
    "docs/cluster.md": ["- Copies are named by content hash"],
}


def test_the_documentation_tells_to_delete_only_records_and_copies() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        allowed = COPIES.get(path.relative_to(ROOT).as_posix(), [])
        for line in path.read_text(encoding="utf-8").splitlines():
            advises = re.search(r"\b(delete|rm|overwrite|erase|wipe)\b", line, flags=re.I)
            assert not advises or any(text in line for text in allowed), f"{path}: {line}"
