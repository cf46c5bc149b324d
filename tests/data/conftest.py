"""A project in a scratch folder, and tiny data sets in the exact on-disk formats."""

import csv
import hashlib
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.fixtures import cifar

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


@pytest.fixture
def formats() -> Any:
    """Builders, for tests (a conftest is not a module to import from)."""
    import types

    return types.SimpleNamespace(
        archive=cifar.archive,
        cifar=cifar.cifar_members,
        stl10=cifar.stl10_members,
        python2_pickle=cifar.python2_pickle,
        pin_and_list=pin_and_list,
    )
