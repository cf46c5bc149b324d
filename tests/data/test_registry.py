"""The registry: what ships is sound, and every fault in it is named with its place."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from gessl.data.registry import Dataset, dataset, dataset_names
from gessl.errors import UserError


def change(project: Path, name: str, *keys: Any, value: Any = None, delete: bool = False) -> None:
    """Set or delete `entry[keys[0]][keys[1]]…` in a data set's file, or (without keys) all of it."""
    path = project / f"config/datasets/{name}.yaml"
    whole = {"": yaml.safe_load(path.read_text(encoding="utf-8"))}
    inner: Any = whole
    *outer, last = ("", *keys)
    for key in outer:
        inner = inner[key]
    if delete:
        del inner[last]
    else:
        inner[last] = value
    path.write_text(yaml.safe_dump(whole[""]), encoding="utf-8")


WITHOUT_SUM = {
    ("chestx", "Data_Entry_2017.csv"),
    ("cropdiseases", "plant-disease.zip"),
    ("isic2018", "ISIC2018_Task3_Training_Input.zip"),
    ("isic2018", "ISIC2018_Task3_Training_GroundTruth.zip"),
    ("isic2018", "ISIC2018_Task3_Training_LesionGroupings.csv"),
}
"""Files of which nobody publishes a checksum: the pin of the first fetch is all there is."""
WITHOUT_ANY = {"mots", "otb2015", "posetrack18"}
"""Data sets of such files."""


def test_what_ships_is_sound(project: Path) -> None:
    assert {"digits", "cifar10", "cifar100", "stl10", "glyphs", "glyphs-shift", "glyphs-small", "glyphs-ten"} <= set(
        dataset_names()
    )
    for name in dataset_names():
        entry = dataset(name)
        assert isinstance(entry, Dataset) and entry.name == name
        assert entry.citation.startswith("https://")
        for file in entry.files:
            known = file.sha256 or file.md5 or (name, file.name) in WITHOUT_SUM or name in WITHOUT_ANY
            assert known, f"{name}: nothing to verify {file.name} with"


def test_an_unknown_name_gets_the_nearest(project: Path) -> None:
    with pytest.raises(UserError, match=r"no data set 'cifar-10'; did you mean 'cifar10'\?"):
        dataset("cifar-10")
    with pytest.raises(UserError, match=r"known: .*cifar10, cifar100, .*digits, .*glyphs-ten, .*stl10"):
        dataset("zzz")


@pytest.mark.parametrize("name", ["../datasets/digits", "/etc/passwd", "digits.yaml", ".#digits", "", "digits\0"])
def test_a_name_is_no_path(name: str, project: Path) -> None:
    (project / "config/datasets/.#digits.yaml").symlink_to("someone@host.1234:5678")  # an editor's lock
    with pytest.raises(UserError, match="config/datasets: no data set"):
        dataset(name)


def test_only_the_entry_that_is_named_is_read(project: Path) -> None:
    before = dataset("digits")
    for name in dataset_names():
        if name != "digits":
            (project / f"config/datasets/{name}.yaml").write_bytes(b"\xff\xfe\0")
    assert dataset("digits") == before


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("digits", "channel"), 1, r"channel: unknown key; did you mean 'channels'\?"),
        (("digits", "name"), "x", r"name: unknown key"),
        (("digits", "files", 0, "sha25"), "x", r"files\.0\.sha25: unknown key; did you mean 'sha256'\?"),
        (("digits", "files", 0, "sha256"), "abc", r"files\.0\.sha256: must be 64 lower-case hex"),
        (("digits", "files", 0, "md5"), "A" * 32, r"files\.0\.md5: must be 32 lower-case hex"),
        (("digits", "files", 0, "bytes"), 0, r"files\.0\.bytes: must be a whole number, at least 1"),
        (("digits", "files", 0, "bytes"), True, r"files\.0\.bytes: must be a whole number, at least 1"),
        (("digits", "files", 0, "name"), "../x", r"files\.0\.name: not a plain file name"),
        (("digits", "files", 0, "source"), "file:///etc/passwd", r"files\.0\.source: must start with"),
        (("digits", "files"), [], r"files: must name at least one file"),
        (("digits", "files"), "x", r"files: must be a list"),
        (("digits", "parts"), {"train": 1}, r"parts: rule stratified needs part all"),
        (("cifar10", "parts"), {"all": 1}, r"parts: rule published needs"),
        (("cifar10", "parts", "train"), -1, r"parts: must map"),
        (("digits", "classes"), "ten", r"classes: must be a whole number, at least 0"),
        (("digits", "classes"), 1, r"classes: one class tells nothing; give 0"),
        (("digits", "classes"), 0, r"classes: 0 goes with rule given alone"),
        (("digits", "access"), "local", r"files: must name at least one file, each once; none where access is local"),
        (("digits", "split"), {"rule": "given"}, r"parts: rule given needs part train or unlabelled"),
        (("cifar10", "split", "rule"), "given", r"split\.val: must be a share, or null with rule given"),
        (("digits", "split", "val"), None, r"split\.val: must be a share, or null with rule given"),
        (("digits", "size"), [8], r"size: must be \[height, width\]"),
        (("digits", "channels"), 2, r"channels: must be 1 or 3"),
        (("digits", "flip"), "no", r"flip: must be true or false"),
        (("digits", "reader"), "digit-csv", r"reader: no such reader; did you mean 'digits-csv'\?$"),
        (("digits", "reader"), "_raw", r"reader: no such reader; "),
        (("digits", "access"), "secret", r"access: must be one of open"),
        (("digits", "title"), 3, r"title: must be text"),
        (("digits", "annotations"), {"kinds": ["boxes"], "categories": 2}, r"annotations: go with store encoded"),
        (("voc2007", "store"), "array", r"annotations: go with store encoded"),
        (("voc2007", "annotations"), "boxes", r"annotations: must be a mapping"),
        (("voc2007", "annotations", "kinds"), "boxes", r"annotations\.kinds: must be a list"),
        (("voc2007", "annotations", "kinds"), [], r"annotations\.kinds: must name some of boxes, masks, tracks"),
        (("voc2007", "annotations", "kinds"), ["box"], r"annotations\.kinds: must be one of boxes, masks, tracks"),
        (
            ("voc2007", "annotations", "kinds"),
            ["boxes", "boxes"],
            r"annotations\.kinds: must name some of .*, each once",
        ),
        (("voc2007", "annotations", "kinds"), [["boxes"]], r"annotations\.kinds: must be one of boxes, masks, tracks"),
        (("voc2007", "annotations", "categories"), 0, r"annotations\.categories: must be a whole number, at least 1"),
        (("voc2007", "annotations", "objects"), 1.5, r"annotations\.objects: must be a whole number, at least 1"),
        (("voc2007", "annotations", "tracks"), 3, r"annotations\.tracks: goes with tracks among the kinds"),
        (("voc2007", "annotations", "masks"), True, r"annotations\.masks: unknown key"),
        (("otb2015", "annotations"), None, r"parts: rule given needs part train or unlabelled, unless there are"),
        (("otb2015", "parts"), {}, r"parts: rule given needs"),
        (("digits", "split", "rule"), "random", r"split\.rule: must be one of"),
        (("digits", "split", "val"), 1.0, r"split\.val: must be a number, above 0 and below 1"),
        (("digits", "split", "test"), None, r"split\.test: must be a share"),
        (("digits", "split", "test"), 0.9, r"split\.test: val and test leave nothing"),
        (("cifar10", "split", "test"), 0.2, r"split\.test: must be null"),
        (("digits", "split", "seed"), -1, r"split\.seed: must be a whole number"),
        (("digits",), {}, r"missing title, reader, files"),
        (("digits", "glyphs"), "x", r"glyphs: must be a mapping"),
        (("glyphs", "glyphs"), None, r"glyphs: must be a mapping"),
        (("glyphs", "glyphs", "slant"), 1, r"glyphs\.slant: unknown key"),
        (("glyphs", "glyphs", "characters"), ["A"], r"glyphs\.characters: must be text"),
        (("glyphs", "glyphs", "characters"), "ABA", r"glyphs\.characters: must be printable .*, each once"),
        (("glyphs", "glyphs", "characters"), "A\0", r"glyphs\.characters: must be printable"),
        (("glyphs", "glyphs", "characters"), "AB", r"classes: must be 2, as many"),
        (("glyphs", "glyphs", "seed"), -1, r"glyphs\.seed: must be a whole number"),
        (("glyphs", "glyphs", "scale"), 0.5, r"glyphs\.scale: must be a list"),
        (("glyphs", "glyphs", "scale"), [0.8, 0.5], r"glyphs\.scale: must be \[low, high\]"),
        (("glyphs", "glyphs", "stretch"), 0.9, r"glyphs\.stretch: must be a number, at least 1 and at most 2"),
        (
            ("glyphs", "glyphs", "rotation"),
            True,
            r"glyphs\.rotation: must be a number, at least 0 and at most 180",
        ),
        (("glyphs", "glyphs", "noise"), "loud", r"glyphs\.noise: must be a number, at least 0 and at most 1"),
        (("glyphs", "glyphs", "colours"), "red", r"glyphs\.colours: must be a list"),
        (("glyphs", "glyphs", "colours"), [[1, 0, 0]], r"glyphs\.colours: must be \[paper, ink\], each"),
        (("glyphs", "glyphs", "colours"), [[1, 0, 0], [0, 0, 2]], r"glyphs\.colours: must be .* within 0 to 1"),
        (("glyphs", "glyphs", "jitter"), 0.1, r"glyphs\.jitter: goes with colours alone"),
        (("glyphs", "parts", "all"), 777, r"parts: must give every class as many"),
        (("glyphs", "size"), [32, 28], r"size: must be square"),
        (("glyphs", "channels"), 1, r"channels: must be 3"),
        (("glyphs", "reader"), "digits-csv", r"glyphs: goes with reader glyphs alone"),
        (("glyphs", "split", "rule"), "published", r"split\.test: must be null"),
        (("digits", "files", 0, "sha256"), 10**63, r"files\.0\.sha256: must be 64 .* in quotes"),
        (("digits", "files", 0, "md5"), 10**31, r"files\.0\.md5: must be 32 .* in quotes"),
        (("digits", "files", 0, "name"), 3, r"files\.0\.name: not a plain file name"),
        (("digits", "files", 0, "name"), None, r"files\.0\.name: not a plain file name"),
        (("digits", "files", 0, "name"), "x" * 300, r"files\.0\.name: not a plain file name, of at most 200"),
        (("digits", "files", 0, "source"), "sklearn:x/../../y", r"files\.0\.source: not an address"),
        (("digits", "files", 0, "source"), "http://x/y\nz", r"files\.0\.source: not an address"),
        (("digits", "files", 0, "source"), "https://me:pw@x/y", r"files\.0\.source: not an address"),
        (("digits", "files", 0, "source"), "https://x:99999999/y", r"files\.0\.source: not an address"),
        (("digits", "files", 0, "source"), "http://[::1/y", r"files\.0\.source: not an address"),
        (("digits", "classes"), 1798, r"classes: 1798 are more than the 1797 images"),
        (
            ("digits", "files"),
            [{"name": "a.gz", "source": "http://x/a"}, {"name": "A.gz", "source": "http://x/b"}],
            r"files: must name at least one file, each once",
        ),
        (("digits",), 7, r"must be a mapping"),
    ],
)
def test_a_fault_is_named_with_its_place(project: Path, keys: tuple[Any, ...], value: Any, message: str) -> None:
    change(project, *keys, value=value)
    line = r":\d+" if len(keys) > 1 else ""
    with pytest.raises(UserError, match=rf"^config/datasets/{keys[0]}\.yaml{line}: {message}") as caught:
        dataset(keys[0])
    assert len(caught.value.args) == 1


@pytest.mark.parametrize(("old", "new"), [("bytes: 57523", "bytes: 57_523"), ("seed: 0}", "seed: 0_1}")])
def test_what_no_number_is_to_the_reader_is_said_once(project: Path, old: str, new: str) -> None:
    path = project / "config/datasets/digits.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"^config/datasets/digits\.yaml:\d+: [^\n]*: readers of YAML differ on [^\n]*$"
    ):
        dataset("digits")


def test_names_are_safe_in_paths(project: Path) -> None:
    long = f"config/datasets/{'x' * 101}.yaml"
    shutil.copy(project / "config/datasets/digits.yaml", project / long)
    with pytest.raises(UserError, match=rf"^{long}: name: only a-z, 0-9 and hyphens, at most 100"):
        dataset("x" * 101)
    (project / "config/datasets/digits.yaml").rename(project / "config/datasets/Digits of UCI.yaml")
    with pytest.raises(UserError, match=r"^config/datasets/Digits of UCI\.yaml: name: only a-z.*; rename the file$"):
        dataset("Digits of UCI")


def test_a_missing_key_is_named(project: Path) -> None:
    change(project, "digits", "licence", delete=True)
    with pytest.raises(UserError, match=r"^config/datasets/digits\.yaml: missing licence$"):
        dataset("digits")


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "", "a: !!python/object/apply:os.getcwd []"])
def test_a_broken_file_is_told_with_its_place(project: Path, text: str) -> None:
    (project / "config/datasets/digits.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        dataset("digits")
    assert all(re.fullmatch(r"config/datasets/digits\.yaml:(\d+:)? [^\n]*", line) for line in caught.value.args)


def test_outside_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="project's root"):
        dataset("digits")
