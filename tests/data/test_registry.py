"""The registry: what ships is sound, and every fault in it is named with its place."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gessl.data.registry import Dataset, dataset, load_registry
from gessl.errors import UserError
from tests.conftest import ROOT

DIGITS = yaml.safe_load((ROOT / "config/datasets.yaml").read_text(encoding="utf-8"))["digits"]


def change(project: Path, *keys: Any, value: Any = None, delete: bool = False) -> None:
    """Set or delete `entries[keys[0]][keys[1]]…` in the project's registry."""
    path = project / "config/datasets.yaml"
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    inner = entries
    for key in keys[:-1]:
        inner = inner[key]
    if delete:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    path.write_text(yaml.safe_dump(entries), encoding="utf-8")


def test_what_ships_is_sound(project: Path) -> None:
    registry = load_registry()
    assert {"digits", "cifar10", "cifar100", "stl10", "glyphs", "glyphs-shift", "glyphs-small", "glyphs-ten"} <= set(
        registry
    )
    for name, entry in registry.items():
        assert isinstance(entry, Dataset) and entry.name == name and dataset(name) == entry
        assert entry.citation.startswith("https://")
        for file in entry.files:
            assert file.sha256 or file.md5, f"{name}: nothing to verify {file.name} with"


def test_an_unknown_name_gets_the_nearest(project: Path) -> None:
    with pytest.raises(UserError, match=r"no data set 'cifar-10'; did you mean 'cifar10'\?"):
        dataset("cifar-10")
    with pytest.raises(UserError, match=r"known: cifar10, cifar100, digits, glyphs, .*, glyphs-ten, stl10"):
        dataset("zzz")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("digits", "channel"), 1, r"digits\.channel: unknown key; did you mean 'channels'\?"),
        (("digits", "name"), "x", r"digits\.name: unknown key"),
        (("digits", "files", 0, "sha25"), "x", r"digits\.files\.0\.sha25: unknown key; did you mean 'sha256'\?"),
        (("digits", "files", 0, "sha256"), "abc", r"digits\.files\.0\.sha256: must be 64 lower-case hex"),
        (("digits", "files", 0, "md5"), "A" * 32, r"digits\.files\.0\.md5: must be 32 lower-case hex"),
        (("digits", "files", 0, "bytes"), 0, r"digits\.files\.0\.bytes: must be a whole number, at least 1"),
        (("digits", "files", 0, "bytes"), True, r"digits\.files\.0\.bytes: must be a whole number, at least 1"),
        (("digits", "files", 0, "name"), "../x", r"digits\.files\.0\.name: not a plain file name"),
        (("digits", "files", 0, "source"), "file:///etc/passwd", r"digits\.files\.0\.source: must start with"),
        (("digits", "files"), [], r"digits\.files: must name at least one file"),
        (("digits", "files"), "x", r"digits\.files: must be a list"),
        (("digits", "parts"), {"train": 1}, r"digits\.parts: rule stratified needs \['all'\]"),
        (("cifar10", "parts"), {"all": 1}, r"cifar10\.parts: rule published needs"),
        (("cifar10", "parts", "train"), -1, r"cifar10\.parts: must map"),
        (("digits", "classes"), "ten", r"digits\.classes: must be a whole number, at least 2"),
        (("digits", "size"), [8], r"digits\.size: must be \[height, width\]"),
        (("digits", "channels"), 2, r"digits\.channels: must be 1 or 3"),
        (("digits", "flip"), "no", r"digits\.flip: must be true or false"),
        (("digits", "reader"), "csv", r"digits\.reader: must be one of digits-csv"),
        (("digits", "access"), "secret", r"digits\.access: must be one of open"),
        (("digits", "title"), 3, r"digits\.title: must be text"),
        (("digits", "split", "rule"), "random", r"digits\.split\.rule: must be one of"),
        (("digits", "split", "val"), 1.0, r"digits\.split\.val: must be a number, above 0 and below 1"),
        (("digits", "split", "test"), None, r"digits\.split\.test: must be a share"),
        (("digits", "split", "test"), 0.9, r"digits\.split\.test: val and test leave nothing"),
        (("cifar10", "split", "test"), 0.2, r"cifar10\.split\.test: must be null"),
        (("digits", "split", "seed"), -1, r"digits\.split\.seed: must be a whole number"),
        (("Digits",), {}, r"Digits: missing"),
        (("digits", "glyphs"), "x", r"digits\.glyphs: must be a mapping"),
        (("glyphs", "glyphs"), None, r"glyphs\.glyphs: must be a mapping"),
        (("glyphs", "glyphs", "slant"), 1, r"glyphs\.glyphs\.slant: unknown key"),
        (("glyphs", "glyphs", "characters"), ["A"], r"glyphs\.glyphs\.characters: must be text"),
        (("glyphs", "glyphs", "characters"), "ABA", r"glyphs\.glyphs\.characters: must be printable .*, each once"),
        (("glyphs", "glyphs", "characters"), "A\0", r"glyphs\.glyphs\.characters: must be printable"),
        (("glyphs", "glyphs", "characters"), "AB", r"glyphs\.classes: must be 2, as many"),
        (("glyphs", "glyphs", "seed"), -1, r"glyphs\.glyphs\.seed: must be a whole number"),
        (("glyphs", "glyphs", "scale"), 0.5, r"glyphs\.glyphs\.scale: must be a list"),
        (("glyphs", "glyphs", "scale"), [0.8, 0.5], r"glyphs\.glyphs\.scale: must be \[low, high\]"),
        (("glyphs", "glyphs", "stretch"), 0.9, r"glyphs\.glyphs\.stretch: must be a number, at least 1 and at most 2"),
        (
            ("glyphs", "glyphs", "rotation"),
            True,
            r"glyphs\.glyphs\.rotation: must be a number, at least 0 and at most 180",
        ),
        (("glyphs", "glyphs", "noise"), "loud", r"glyphs\.glyphs\.noise: must be a number, at least 0 and at most 1"),
        (("glyphs", "glyphs", "colours"), "red", r"glyphs\.glyphs\.colours: must be a list"),
        (("glyphs", "glyphs", "colours"), [[1, 0, 0]], r"glyphs\.glyphs\.colours: must be \[paper, ink\], each"),
        (("glyphs", "glyphs", "colours"), [[1, 0, 0], [0, 0, 2]], r"glyphs\.glyphs\.colours: must be .* within 0 to 1"),
        (("glyphs", "glyphs", "jitter"), 0.1, r"glyphs\.glyphs\.jitter: goes with colours alone"),
        (("glyphs", "parts", "all"), 777, r"glyphs\.parts: must give every class as many"),
        (("glyphs", "size"), [32, 28], r"glyphs\.size: must be square"),
        (("glyphs", "channels"), 1, r"glyphs\.channels: must be 3"),
        (("glyphs", "reader"), "digits-csv", r"glyphs\.glyphs: goes with reader glyphs alone"),
        (("glyphs", "split", "rule"), "published", r"glyphs\.split\.test: must be null"),
        (("digits", "files", 0, "sha256"), 10**63, r"digits\.files\.0\.sha256: must be 64 .* in quotes"),
        (("digits", "files", 0, "md5"), 10**31, r"digits\.files\.0\.md5: must be 32 .* in quotes"),
        (("digits", "files", 0, "name"), 3, r"digits\.files\.0\.name: not a plain file name"),
        (("digits", "files", 0, "name"), None, r"digits\.files\.0\.name: not a plain file name"),
        (("digits", "files", 0, "name"), "x" * 300, r"digits\.files\.0\.name: not a plain file name, of at most 200"),
        (("digits", "files", 0, "source"), "sklearn:x/../../y", r"digits\.files\.0\.source: not an address"),
        (("digits", "files", 0, "source"), "http://x/y\nz", r"digits\.files\.0\.source: not an address"),
        (("digits", "files", 0, "source"), "https://me:pw@x/y", r"digits\.files\.0\.source: not an address"),
        (("digits", "files", 0, "source"), "https://x:99999999/y", r"digits\.files\.0\.source: not an address"),
        (("digits", "files", 0, "source"), "http://[::1/y", r"digits\.files\.0\.source: not an address"),
        (("digits", "classes"), 1798, r"digits\.classes: 1798 are more than the 1797 images"),
        (("x" * 101,), {**DIGITS}, r"x+\.name: only a-z, 0-9 and hyphens, at most 100"),
        (
            ("digits", "files"),
            [{"name": "a.gz", "source": "http://x/a"}, {"name": "A.gz", "source": "http://x/b"}],
            r"digits\.files: must name at least one file, each once",
        ),
        (("digits",), 7, r"digits: must be a mapping"),
    ],
)
def test_a_fault_is_named_with_its_place(project: Path, keys: tuple[Any, ...], value: Any, message: str) -> None:
    change(project, *keys, value=value)
    with pytest.raises(UserError, match=r"^config/datasets\.yaml:\d+: " + message) as caught:
        load_registry()
    assert len(caught.value.args) == (2 if keys[-1] == "characters" and value == "AB" else 1)  # twice in the registry


@pytest.mark.parametrize(("old", "new"), [("bytes: 57523", "bytes: 57_523"), ("seed: 0}", "seed: 0_1}")])
def test_what_no_number_is_to_the_reader_is_said_once(project: Path, old: str, new: str) -> None:
    path = project / "config/datasets.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"^config/datasets\.yaml:\d+: digits\.[^\n]*: readers of YAML differ on [^\n]*$"
    ):
        load_registry()


def test_names_are_safe_in_paths(project: Path) -> None:
    path = project / "config/datasets.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("digits:\n", "../digits:\n", 1), encoding="utf-8")
    with pytest.raises(UserError, match="name: only a-z"):
        load_registry()


def test_a_missing_key_is_named(project: Path) -> None:
    change(project, "digits", "licence", delete=True)
    with pytest.raises(UserError, match="digits: missing licence"):
        load_registry()


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "", "a: !!python/object/apply:os.getcwd []"])
def test_a_broken_file_is_one_line(project: Path, text: str) -> None:
    (project / "config/datasets.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"^config/datasets\.yaml:(\d+:)? [^\n]*$"):
        load_registry()


def test_outside_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="project's root"):
        load_registry()
