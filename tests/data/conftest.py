"""A project in a scratch folder, and tiny data sets in the exact on-disk formats."""

import csv
import hashlib
import importlib.util
import io
import pickle
import shutil
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with the real registry; it is the working directory."""
    shutil.copytree(ROOT / "config/datasets", tmp_path / "config/datasets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def digits_gz() -> bytes:
    """The file that scikit-learn bundles (found without the seconds that importing scikit-learn takes)."""
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None and spec.origin is not None
    return (Path(spec.origin).parent / "datasets/data/digits.csv.gz").read_bytes()


@pytest.fixture
def register(project: Path) -> Callable[..., None]:
    """`register(name, like=..., **changes)`: add an entry to the registry, made of another one."""
    import yaml  # not at the top: a bare GPU machine, which runs some tests of this folder, may lack it

    def add(name: str, like: str, **changes: Any) -> None:
        folder = project / "config/datasets"
        entry = yaml.safe_load((folder / f"{like}.yaml").read_text(encoding="utf-8"))
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**entry, **changes}), encoding="utf-8")

    return add


def pin_and_list(name: str) -> None:
    """What `gessl fetch` writes about the files in the raw folder of data set `name`, without the seconds of DVC."""
    from gessl.data import fetch
    from gessl.data.pin import write_pin
    from gessl.data.registry import dataset

    write_pin(name)
    fetch._write_manifest(dataset(name))


@pytest.fixture
def place(register: Callable[..., None], project: Path) -> Callable[..., Path]:
    """`place(name, like, content, parts)`: a one-file data set, placed, pinned and listed as `gessl fetch` does it."""

    def put(name: str, like: str, content: bytes, **changes: Any) -> Path:
        file = {"name": "raw.bin", "source": "https://example.org/raw.bin"}
        register(name, like, files=[file], **changes)
        path = project / "data/raw" / name / "raw.bin"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        pin_and_list(name)
        return path

    return put


@pytest.fixture
def place_files(register: Callable[..., None], project: Path) -> Callable[..., Path]:
    """`place_files(name, like, contents, **changes)`: a data set of several files, in the order and of the names of
    `contents`, placed, pinned and listed as `gessl fetch` does it; returns its folder.
    """

    def put(name: str, like: str, contents: dict[str, bytes], **changes: Any) -> Path:
        files = [{"name": file, "source": f"https://example.org/{file}"} for file in contents]
        register(name, like, files=files, **changes)
        folder = project / "data/raw" / name
        folder.mkdir(parents=True)
        for file, content in contents.items():
            (folder / file).write_bytes(content)
        pin_and_list(name)
        return folder

    return put


@pytest.fixture
def place_pictures(register: Callable[..., None], project: Path, formats: Any) -> Callable[..., dict[str, bytes]]:
    """`place_pictures(files, splits, **changes)`: the data set `mine` of these files, as `gessl data add` leaves them.

    `files` maps the names `<class>/<name>` to their bytes, `splits` the names to splits.
    """

    def put(files: dict[str, bytes], splits: dict[str, str] | None = None, **changes: Any) -> dict[str, bytes]:
        classes = {name.split("/")[0] for name in files}
        asked = {
            "title": "mine", "reader": "listed", "files": [], "parts": {"all": len(files)}, "classes": len(classes),
            "size": [16, 20], "channels": 3, "access": "local", "store": "encoded",
            "split": {"rule": "stratified", "val": 0.2, "test": 0.2},
        }  # fmt: skip
        register("mine", "digits", **asked | changes)
        folder = project / "data/raw/mine"
        folder.mkdir(parents=True)
        rows = [("name", "file", "label", "split", "group", "pixels")]
        for name, data in files.items():
            kind, split = name.split("/")[0], (splits or {}).get(name, "")
            digest = hashlib.sha256(data).hexdigest()
            path = folder / "pictures" / digest[:2] / f"{digest}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            rows.append((name, path.relative_to(folder).as_posix(), kind, split, "", ""))
        with open(folder / "listing.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        formats.pin_and_list("mine")
        return files

    return put


@pytest.fixture
def draw_glyphs(register: Callable[..., None], project: Path) -> Callable[..., None]:
    """`draw_glyphs(name, faces, per_class, glyphs, **changes)`: like `glyphs-small`, its fonts placed and pinned.

    `faces` are file names of DejaVu fonts, `glyphs` changes how they are drawn.
    """
    import yaml

    from gessl.data.fetch import _copy_bundled

    small = yaml.safe_load((ROOT / "config/datasets/glyphs-small.yaml").read_text(encoding="utf-8"))

    def put(
        name: str,
        faces: tuple[str, ...] = ("DejaVuSans.ttf", "DejaVuSansMono-Bold.ttf"),
        per_class: int = 20,
        glyphs: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        drawn = small["glyphs"] | {"characters": "AGKж∑"} | (glyphs or {})
        files = [{"name": face, "source": f"matplotlib:fonts/ttf/{face}"} for face in faces]
        classes = len(drawn["characters"])
        counts = {"classes": classes, "parts": {"all": classes * per_class}}
        register(name, "glyphs-small", files=files, glyphs=drawn, **counts, **changes)
        folder = project / "data/raw" / name
        folder.mkdir(parents=True)
        for face in faces:
            _copy_bundled("matplotlib", f"fonts/ttf/{face}", folder / face)
        pin_and_list(name)

    return put


class _Python2Pickler(pickle._Pickler):  # the Python implementation: the only one whose opcodes can be replaced
    """Writes text and bytes as Python 2's `str`, and NumPy's names of that time, as the published files have them."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def _save_str(self, value: str | bytes) -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[str] = _save_str
    dispatch[bytes] = _save_str


def python2_pickle(value: Any) -> bytes:
    """`value` as Python 2 would have pickled it (protocol 2)."""
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def archive(members: dict[str, bytes]) -> bytes:
    """A tar.gz of files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def cifar_members(classes: int, per_class: int, seed: int = 0) -> dict[str, bytes]:
    """A small CIFAR-10 (`classes` 10) or CIFAR-100: `per_class` images of each class in each batch."""
    rng = np.random.default_rng(seed)

    def batch() -> bytes:
        labels = rng.permutation(np.repeat(np.arange(classes), per_class)).tolist()
        data = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        key = "labels" if classes == 10 else "fine_labels"
        return python2_pickle({"data": data, key: labels, "filenames": [f"{i}.png" for i in range(len(labels))]})

    names = [f"class {i}" for i in range(classes)]
    if classes == 10:
        members = {name: batch() for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]}
        members["batches.meta"] = python2_pickle({"label_names": names})
        return {f"cifar-10-batches-py/{name}": content for name, content in members.items()}
    members = {"train": batch(), "test": batch(), "meta": python2_pickle({"fine_label_names": names})}
    return {f"cifar-100-python/{name}": content for name, content in members.items()}


def stl10_members(train: int, test: int, unlabelled: int) -> dict[str, bytes]:
    """A small STL-10; classes take turns."""
    rng = np.random.default_rng(0)
    members = {"class_names.txt": "\n".join(f"thing{i}" for i in range(10)).encode() + b"\n"}
    for part, count in (("unlabeled", unlabelled), ("train", train), ("test", test)):
        members[f"{part}_X.bin"] = rng.integers(0, 256, count * 27648, dtype=np.uint8).tobytes()
        if part != "unlabeled":
            members[f"{part}_y.bin"] = (np.arange(count) % 10 + 1).astype(np.uint8).tobytes()
    members["fold_indices.txt"] = b"0 1 2\n" * 10
    return {f"stl10_binary/{name}": content for name, content in members.items()}


@pytest.fixture
def formats() -> Any:
    """The builders above, for tests (a conftest is not a module to import from)."""
    import types

    return types.SimpleNamespace(
        archive=archive,
        cifar=cifar_members,
        stl10=stl10_members,
        python2_pickle=python2_pickle,
        pin_and_list=pin_and_list,
    )
