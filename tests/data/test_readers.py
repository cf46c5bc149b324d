"""Readers against the loaders of scikit-learn and torchvision, on files in the published formats."""

import gzip
import importlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gessl.data import readers, registry
from gessl.data.readers import _raw, open_raw
from gessl.data.registry import Dataset, dataset, reader_names
from gessl.errors import UserError


def read(entry: Dataset) -> tuple[tuple[str, ...], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Class names; images and labels per part."""
    raw = open_raw(entry)
    chunks = list(raw.chunks())
    return raw.classes, {
        part: (
            np.concatenate([chunk.images for chunk in chunks if chunk.part == part]),
            np.concatenate([chunk.labels for chunk in chunks if chunk.part == part]),
        )
        for part in dict.fromkeys(chunk.part for chunk in chunks)
    }


@pytest.fixture
def torchvision_class(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Any]:
    """A torchvision loader that takes our small files for the published ones (their MD5 is not checked)."""

    def load(module: str, name: str) -> Any:
        code = importlib.import_module(f"torchvision.datasets.{module}")
        for imported in ("cifar", "stl10"):
            other = importlib.import_module(f"torchvision.datasets.{imported}")
            monkeypatch.setattr(other, "check_integrity", lambda path, md5=None: Path(path).exists())
        return getattr(code, name)

    return load


def unpack(content: bytes, folder: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def test_readers_are_known_without_being_imported() -> None:
    assert {"cifar10-pickle", "digits-csv", "glyphs", "listed", "stl10-binary"} <= {*reader_names()}
    assert reader_names() == sorted(reader_names()) and not any(name.startswith("-") for name in reader_names())
    code = "import sys; from gessl.data.registry import dataset; dataset('digits'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert "gessl.data.registry" in done.stdout.split()
    assert "gessl.data.readers" not in done.stdout.split()


def test_a_reader_more_is_one_file(
    place: Callable[..., Path], digits_gz: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "__path__", [*readers.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "reader_names", lambda: ["my-own"])
    code = tmp_path / "my_own.py"
    place("mine", "digits", digits_gz, reader="my-own")
    for text, complaint in {
        "x = 1 +\n": r"reader 'my-own': gessl.data.readers.my_own does not import: SyntaxError",
        "x = 1\n": r"reader 'my-own': .*my_own.py must define a function read\(entry, folder\)",
    }.items():
        code.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=complaint):
            open_raw(dataset("mine"))
        sys.modules.pop("gessl.data.readers.my_own", None)
        importlib.invalidate_caches()
    code.write_text("from gessl.data.readers.digits_csv import read as read\n", encoding="utf-8")
    assert len(open_raw(dataset("mine")).classes) == 10
    sys.modules.pop("gessl.data.readers.my_own")


def test_digits_equal_scikit_learns(place: Callable[..., Path], digits_gz: bytes) -> None:
    from sklearn.datasets import load_digits

    place("mine", "digits", digits_gz)
    classes, parts = read(dataset("mine"))
    expected = load_digits()
    images, labels = parts["all"]
    assert classes == tuple(map(str, expected.target_names))
    assert images.shape == (1797, 1, 8, 8) and images.dtype == np.uint8
    assert (np.round(images[:, 0] / 255 * 16) == expected.images).all()
    assert set(np.unique(images)) == {round(v * 255 / 16) for v in range(17)}
    assert (labels == expected.target).all()


@pytest.mark.parametrize(("name", "classes", "loader"), [("cifar10", 10, "CIFAR10"), ("cifar100", 100, "CIFAR100")])
def test_cifar_equals_torchvisions(
    name: str,
    classes: int,
    loader: str,
    place: Callable[..., Path],
    formats: Any,
    tmp_path: Path,
    torchvision_class: Callable[[str, str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = formats.archive(formats.cifar(classes, 2 if classes == 10 else 1))
    batches = 5 if classes == 10 else 1
    per_batch = 20 if classes == 10 else 100
    place("mine", name, content, parts={"train": batches * per_batch, "test": per_batch})
    names, parts = read(dataset("mine"))
    for part in ("train", "test"):
        peer = torchvision_class("cifar", loader)(unpack(content, tmp_path / "peer"), train=part == "train")
        images, labels = parts[part]
        assert (images == peer.data.transpose(0, 3, 1, 2)).all()
        assert labels.tolist() == peer.targets
        assert list(names) == peer.classes


def test_a_batch_may_be_larger_than_what_is_unpacked_at_a_time(
    place: Callable[..., Path], formats: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CIFAR-100's is, in which all 50,000 images are one."""
    place("mine", "cifar100", formats.archive(formats.cifar(100, 1)), parts={"train": 100, "test": 100})
    whole = read(dataset("mine"))
    monkeypatch.setattr(_raw, "PIECE", 1 << 15)  # of batches of 300 kB
    for part, (images, labels) in read(dataset("mine"))[1].items():
        assert (images == whole[1][part][0]).all() and (labels == whole[1][part][1]).all()


def test_stl10_equals_torchvisions(
    place: Callable[..., Path], formats: Any, tmp_path: Path, torchvision_class: Callable[[str, str], Any]
) -> None:
    content = formats.archive(formats.stl10(20, 10, 3))
    place("mine", "stl10", content, parts={"train": 20, "test": 10, "unlabelled": 3})
    names, parts = read(dataset("mine"))
    assert list(parts) == ["train", "test", "unlabelled"]  # in this order, whatever the archive's
    folder = unpack(content, tmp_path / "peer")
    for part, word in (("train", "train"), ("test", "test"), ("unlabelled", "unlabeled")):
        peer = torchvision_class("stl10", "STL10")(folder, split=word)
        images, labels = parts[part]
        assert (images == peer.data).all()
        assert labels.tolist() == peer.labels.tolist()
        assert list(names) == peer.classes


def test_published_checksums_equal_torchvisions(project: Path) -> None:
    from torchvision import datasets

    for name, peer in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100), ("stl10", datasets.STL10)):
        (file,) = dataset(name).files
        assert (file.name, file.source, file.md5) == (peer.filename, peer.url, peer.tgz_md5)


def test_pickles_of_todays_numpy_are_read_too(place: Callable[..., Path], formats: Any) -> None:
    members = formats.cifar(10, 1)
    modern = {name: pickle.dumps(pickle.loads(text, encoding="latin1"), protocol=2) for name, text in members.items()}
    parts = {"train": 50, "test": 10}
    place("old", "cifar10", formats.archive(members), parts=parts)
    place("new", "cifar10", formats.archive(modern), parts=parts)
    assert (read(dataset("old"))[1]["train"][0] == read(dataset("new"))[1]["train"][0]).all()


class _Trap:
    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = (call, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduced


@pytest.mark.parametrize(
    ("trap", "said"),
    [
        (_Trap(os.mkdir, "trapped"), "posix.mkdir"),
        (_Trap(eval, "__import__('os').mkdir('trapped')"), "eval"),
        (_Trap(getattr, "", "join"), "getattr"),
        (_Trap(np.load, "x.npy"), "numpy"),
    ],
)
@pytest.mark.parametrize("member", ["batches.meta", "test_batch"])
def test_a_pickle_that_runs_code_is_refused(
    trap: _Trap, said: str, member: str, place: Callable[..., Path], formats: Any, project: Path
) -> None:
    members = formats.cifar(10, 1)
    members[f"cifar-10-batches-py/{member}"] = pickle.dumps({"data": trap}, protocol=2)
    place("mine", "cifar10", formats.archive(members), parts={"train": 50, "test": 10})
    with pytest.raises(UserError, match=member) as caught:
        read(dataset("mine"))
    assert said in str(caught.value)
    assert not (project / "trapped").exists()


def test_a_pickle_with_another_codec_is_refused(place: Callable[..., Path], formats: Any) -> None:
    import _codecs

    members = formats.cifar(10, 1)
    members["cifar-10-batches-py/batches.meta"] = pickle.dumps(_Trap(_codecs.encode, "x", "rot13"), protocol=2)
    place("mine", "cifar10", formats.archive(members), parts={"train": 50, "test": 10})
    with pytest.raises(UserError, match="rot13"):
        read(dataset("mine"))


@pytest.mark.parametrize("kind", ["cifar10", "stl10", "digits"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "hollow"])
def test_damaged_files_are_refused(
    kind: str, damage: str, place: Callable[..., Path], formats: Any, digits_gz: bytes
) -> None:
    builders: dict[str, Callable[[], bytes]] = {
        "cifar10": lambda: formats.archive(formats.cifar(10, 1)),
        "stl10": lambda: formats.archive(formats.stl10(10, 10, 1)),
        "digits": lambda: digits_gz,
    }
    content = builders[kind]()
    broken = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "text": b"404 not found",
        "hollow": gzip.compress(b""),
    }[damage]
    parts = {"cifar10": {"train": 50, "test": 10}, "stl10": {"train": 10, "test": 10, "unlabelled": 1}}
    path = place("mine", kind, broken, **({"parts": parts[kind]} if kind in parts else {}))
    with pytest.raises(UserError, match=str(path.relative_to(Path.cwd()))):
        read(dataset("mine"))


def test_a_flipped_byte_in_digits_is_noticed(place: Callable[..., Path], digits_gz: bytes) -> None:
    middle = len(digits_gz) // 2
    place("mine", "digits", digits_gz[:middle] + bytes([digits_gz[middle] ^ 1]) + digits_gz[middle + 1 :])
    with pytest.raises(UserError, match="damaged or cut short"):
        read(dataset("mine"))


def _swap(members: dict[str, bytes], name: str, formats: Any, **changes: Any) -> bytes:
    batch = pickle.loads(members[name], encoding="latin1") | changes
    content: bytes = formats.archive(members | {name: formats.python2_pickle(batch)})
    return content


def test_contents_at_odds_with_the_registry_are_refused(place: Callable[..., Path], formats: Any) -> None:
    members, parts = formats.cifar(10, 1), {"train": 50, "test": 10}
    name = "cifar-10-batches-py/test_batch"
    grey = np.zeros((10, 1024), np.uint8)
    wide = np.zeros((10, 3072), np.int64)
    cases = {
        "high": (_swap(members, name, formats, labels=[*range(9), 10]), r"label .* lies outside 0\.\.9"),
        "negative": (_swap(members, name, formats, labels=[*range(9), -1]), r"label .* lies outside 0\.\.9"),
        "gap": (_swap(members, name, formats, labels=[0, *range(9)]), "no image of class 9"),
        "short": (_swap(members, name, formats, labels=[1]), "not a batch"),
        "grey": (_swap(members, name, formats, data=grey), "not a batch"),
        "wide": (_swap(members, name, formats, data=wide), "not a batch"),
        "other": (formats.archive(formats.cifar(100, 1)), "holds no file"),
        "few": (formats.archive(formats.cifar(10, 2)), "the registry says"),
        "names": (
            _swap(members, "cifar-10-batches-py/batches.meta", formats, label_names=["a"]),
            "names 1 classes; the registry says 10",
        ),
    }
    for key, (content, message) in cases.items():
        place(key, "cifar10", content, parts=parts)
        with pytest.raises(UserError, match=message):
            read(dataset(key))
    place("size", "cifar10", formats.archive(members), parts=parts, size=[64, 64])
    with pytest.raises(UserError, match=r"uint8 \[10, 3, 32, 32\]; the registry says uint8 \[10, 3, 64, 64\]"):
        read(dataset("size"))


def test_stl10_labels_start_at_one(place: Callable[..., Path], formats: Any) -> None:
    members = formats.stl10(10, 10, 1)
    members["stl10_binary/train_y.bin"] = bytes(range(10))
    place("mine", "stl10", formats.archive(members), parts={"train": 10, "test": 10, "unlabelled": 1})
    with pytest.raises(UserError, match=r"lies outside 0\.\.9"):
        read(dataset("mine"))
    members["stl10_binary/train_y.bin"] = bytes(range(1, 10))
    place("short", "stl10", formats.archive(members), parts={"train": 10, "test": 10, "unlabelled": 1})
    with pytest.raises(UserError, match="one per label"):
        read(dataset("short"))


@pytest.mark.parametrize("line", ["1,2,3", ",".join(["17"] * 64 + ["3"]), ",".join(["0.5"] * 65), "a" * 9])
def test_digits_lines_are_checked(line: str, place: Callable[..., Path]) -> None:
    place("mine", "digits", gzip.compress(f"{line}\n".encode()), parts={"all": 10})
    with pytest.raises(UserError, match=r"data/raw/mine/raw\.bin"):
        read(dataset("mine"))


def _opcodes(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def _text(content: bytes) -> bytes:
    return pickle.BINSTRING + len(content).to_bytes(4, "little") + content


# an array that claims to hold objects, over bytes of the file, of which one is then set: NumPy's own machinery follows
# the address that they hold
OBJECTS = _opcodes(
    b"}(U\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btRq\x00",
    b"(K\x01(K\x0aM\x00\x0ctcnumpy\ndtype\n(U\x02O8K\x00K\x01tR",
    _text(b"A" * 10 * 3072) + b"\x89tb",
    b"h\x00(K\x00(U\x01x(tttbu",
)
BOMBS = {
    "objects": OBJECTS,
    "sets an element of an array": _opcodes(b"}(U\x04data", b"cnumpy\nndarray\n(K\x08tR", b"K\x00U\x01xsu"),
    "endless memo": _opcodes(b"}r\xff\xff\xff\x7f"),
    "lists": _opcodes(b"]" * 900_000),
    "nested lists": _opcodes(b"]" * 30_000, b"a" * 29_999),
    "nested tuples as a key": _opcodes(b"})" + b"\x85" * 60_000 + b"K\x00s"),
    "repeats": _opcodes(b"}(U\x04data](" + b"NNNNNNNN2" * 90_000 + b"eu"),
    "a persistent object": _opcodes(b"Px\n"),
    "state of a function": _opcodes(b"c_codecs\nencode\n}U\x0b__defaults__)sb"),
    "bytes that are not there": _opcodes(b"}B\xff\xff\xff\x7f"),
    "one text encoded again and again": _opcodes(
        b"c_codecs\nencode\nq\x00X" + (500_000).to_bytes(4, "little") + b"a" * 500_000 + b"q\x01X\6\0\0\0latin1q\x02](",
        b"h\x00h\x01h\x02\x86R" * 10_000 + b"e",
    ),
    "a number of many digits": _opcodes(b"L" + b"9" * 100_000 + b"L\n"),
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=list(BOMBS))
def test_a_pickle_cannot_harm_the_interpreter(content: bytes, place: Callable[..., Path], formats: Any) -> None:
    members = formats.cifar(10, 1) | {"cifar-10-batches-py/test_batch": content}
    place("mine", "cifar10", formats.archive(members), parts={"train": 50, "test": 10})
    code = (
        "import resource\n"
        "from gessl.data.readers import open_raw\n"
        "from gessl.data.registry import dataset\n"
        "from gessl.errors import UserError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "try:\n"
        "    list(open_raw(dataset('mine')).chunks())\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and "test_batch" in done.stdout, done.stderr
    assert "MemoryError" not in done.stdout


def _huge(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar.gz of one member of zeros, written without holding it."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    header = gzip.compress(entry.tobuf(tarfile.GNU_FORMAT))
    block = gzip.compress(bytes(16 << 20))
    return header + block * (size >> 24)


@pytest.mark.parametrize(
    ("kind", "name", "type_"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_1", tarfile.REGTYPE),
        ("cifar10", "other", tarfile.REGTYPE),
        ("cifar10", "././@LongLink", tarfile.GNUTYPE_LONGNAME),
        ("cifar10", "pax", tarfile.XHDTYPE),
        ("stl10", "stl10_binary/train_X.bin", tarfile.REGTYPE),
        ("digits", "", b""),
    ],
)
def test_what_unpacks_to_gigabytes_is_refused(kind: str, name: str, type_: bytes, place: Callable[..., Path]) -> None:
    content = _huge(name, 2 << 30, type_) if name else gzip.compress(bytes(16 << 20)) * 128
    parts = {"cifar10": {"train": 50, "test": 10}, "stl10": {"train": 10, "test": 10, "unlabelled": 1}}
    place("mine", kind, content, **({"parts": parts[kind]} if kind in parts else {}))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"data/raw/mine/raw\.bin: "):
            read(dataset("mine"))
        assert tracemalloc.get_traced_memory()[1] < 256 << 20
    finally:
        tracemalloc.stop()


def _special(kind: bytes, **facts: Any) -> tarfile.TarInfo:
    entry = tarfile.TarInfo("cifar-10-batches-py/test_batch")
    entry.type = kind
    for key, value in facts.items():
        setattr(entry, key, value)
    return entry


@pytest.mark.parametrize(
    "entry",
    [
        _special(tarfile.SYMTYPE, linkname="data_batch_1"),
        _special(tarfile.LNKTYPE, linkname="cifar-10-batches-py/data_batch_1"),
        _special(tarfile.CHRTYPE, devmajor=1, devminor=5),
        _special(tarfile.FIFOTYPE),
        _special(tarfile.REGTYPE, pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": "30000000000"}),
    ],
    ids=["link", "hard link", "device", "pipe", "sparse"],
)
def test_only_plain_members_count(entry: tarfile.TarInfo, place: Callable[..., Path], formats: Any) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name, content in formats.cifar(10, 1).items():
            if name != entry.name:
                plain = tarfile.TarInfo(name)
                plain.size = len(content)
                tar.addfile(plain, io.BytesIO(content))
        tar.addfile(entry)
    place("mine", "cifar10", file.getvalue(), parts={"train": 50, "test": 10})
    with pytest.raises(UserError, match="holds no file 'cifar-10-batches-py/test_batch'"):
        read(dataset("mine"))


def test_an_archive_of_many_files_is_refused(place: Callable[..., Path], formats: Any) -> None:
    many = {f"{number}": b"" for number in range(200)}
    place("mine", "cifar10", formats.archive(many | formats.cifar(10, 1)), parts={"train": 50, "test": 10})
    with pytest.raises(UserError, match="more than 100 files"):
        read(dataset("mine"))


def _header(kind: bytes, content: bytes) -> bytes:
    """A tar member that describes the next one."""
    entry = tarfile.TarInfo("header")
    entry.type, entry.size = kind, len(content)
    return entry.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


@pytest.mark.parametrize(
    "headers",
    [
        _header(tarfile.GNUTYPE_LONGNAME, b"a") * 3000,
        _header(tarfile.XHDTYPE, b"12 path=aaa\n") * 3000,
        _header(tarfile.XHDTYPE, b"1" * 2_000_000),  # tarfile's search in it takes the square of its length
    ],
    ids=["names of names", "headers of headers", "digits"],
)
def test_headers_of_an_archive_are_few_and_short(headers: bytes, place: Callable[..., Path]) -> None:
    place("mine", "cifar10", gzip.compress(headers), parts={"train": 50, "test": 10})
    with pytest.raises(UserError, match="too many of them"):
        read(dataset("mine"))


@pytest.mark.parametrize("name", ["\ud800", "a\nb", "\x1b[31m"])
def test_the_name_of_a_class_is_a_line_of_text(name: str, place: Callable[..., Path], formats: Any) -> None:
    meta = pickle.dumps({"label_names": [name, *map(str, range(9))]}, 2)
    members = formats.cifar(10, 1) | {"cifar-10-batches-py/batches.meta": meta}
    place("mine", "cifar10", formats.archive(members), parts={"train": 50, "test": 10})
    with pytest.raises(UserError, match="no line of text"):
        read(dataset("mine"))
