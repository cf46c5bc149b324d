"""Fetching: DVC in earnest (pin, status, checkout, push, pull), downloads, and every way that bytes can be wrong."""

import contextlib
import functools
import hashlib
import http.server
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gessl.data import download
from gessl.data import fetch as fetching
from gessl.data import pin as pinning
from gessl.data.fetch import fetch
from gessl.data.pin import data_version, folder_hashes, folder_md5, read_manifest, read_pin, verify_raw, write_pin
from gessl.data.prepare import prepare
from gessl.data.registry import dataset
from gessl.errors import UserError
from gessl.files import sha256_file
from gessl.layout import pin as pin_of
from gessl.records.record import read_record

RAW = Path("data/raw/digits/digits.csv.gz")
PIN = Path("data/raw/digits.dvc")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAITS", (0, 0))


def dvc(*arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.strip()


@pytest.fixture
def dvc_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with DVC and an empty default remote, kept apart from the settings of whoever runs the tests."""
    for name in ("DVC_SYSTEM_CONFIG_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(name, str(project / "dvc-home"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    (project / ".dvc").mkdir()
    core = "[core]\n    no_scm = True\n    check_update = false\n    remote = store\n"
    (project / ".dvc/config").write_text(
        f"{core}['remote \"store\"']\n    url = {project / 'store'}\n", encoding="utf-8"
    )
    return project


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the local address at which it is served."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def published(content: bytes, address: str) -> dict[str, Any]:
    """The registry's line for a served file."""
    return {
        "name": "a.bin",
        "source": f"{address}/a.bin",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "md5": hashlib.md5(content).hexdigest(),
    }


def test_digits_come_pinned_and_survive_loss_and_tampering(dvc_project: Path) -> None:
    fetch("digits")
    pin = read_pin(PIN)
    assert pin.md5 == data_version("digits") == folder_md5(folder_hashes(RAW.parent))  # ours equals DVC's
    assert (pin.nfiles, pin.size, pin.path) == (1, RAW.stat().st_size, "digits")
    assert json.loads(dvc("status", "--json")) == {}
    manifest, record = read_manifest("digits"), read_record(Path("results/raw/digits"))
    assert manifest is not None and record is not None
    (entry,) = manifest["files"]
    assert entry["sha256"] == sha256_file(RAW) and entry["path"] == RAW.name and entry["bytes"] == 57523
    assert record["step"] == "fetch" and record["inputs"][0]["path"] == PIN.as_posix()
    assert record["config"]["dataset"]["licence"]

    # an altered byte is noticed by whoever looks, and is left for its owner to judge
    original = RAW.read_bytes()
    RAW.chmod(0o644)
    RAW.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    for verb in (fetch, prepare, verify_raw):
        with pytest.raises(UserError, match=r"digits\.csv\.gz: was altered.*move \S*csv\.gz away and run `gessl fetch"):
            verb("digits")
    assert RAW.read_bytes() != original

    # lost raw folder: back from the cache; lost cache too: back from the remote; the source is not asked
    dvc("push", "-q")
    entry = Path("config/datasets/digits.yaml")
    entry.write_text(
        entry.read_text(encoding="utf-8").replace("sklearn:digits.csv.gz", "sklearn:gone.csv.gz"), encoding="utf-8"
    )
    for lost in ([RAW.parent], [RAW.parent, Path(".dvc/cache"), Path("dvc-home"), Path("results")]):
        for folder in lost:
            shutil.rmtree(folder)
        fetch("digits")
        assert RAW.read_bytes() == original and read_pin(PIN) == pin
        assert read_manifest("digits") is not None


def test_our_own_pin_is_dvcs(dvc_project: Path) -> None:
    """Of a folder with folders in it: DVC takes it for its own, and has the same bytes for it."""
    folder = Path("data/raw/mine")
    for name in ("a/1.bin", "b/2.bin", "listing.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    write_pin("mine")
    ours = Path("data/raw/mine.dvc").read_bytes()
    verify_raw("mine")
    dvc("commit", "--force", "data/raw/mine.dvc")
    assert json.loads(dvc("status", "--json")) == {}
    assert Path("data/raw/mine.dvc").read_bytes() == ours
    shutil.rmtree(folder)
    dvc("pull", "data/raw/mine.dvc")
    verify_raw("mine")


def damage(entry: Path) -> None:
    """What a full disk leaves of a file in DVC's cache: cut short, and write-protected, so that DVC trusts it."""
    entry.chmod(0o644)
    entry.write_bytes(entry.read_bytes()[:1000])
    entry.chmod(0o444)


@pytest.mark.slow
def test_a_damaged_entry_of_the_cache_is_named_and_other_sources_are_asked(
    dvc_project: Path, register: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    fetch("digits")
    original, md5 = RAW.read_bytes(), folder_hashes(RAW.parent)[RAW.name]
    entry = dvc_project / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}"

    def lose() -> None:
        damage(entry)
        shutil.rmtree(RAW.parent)

    lose()
    fetch("digits")  # the source
    assert RAW.read_bytes() == original and entry.read_bytes() == original
    assert f"{entry}: damaged entry of DVC's cache, now {entry.name}.damaged" in capsys.readouterr().err
    dvc("push", "-q")
    register("digits", "digits", access="manual")
    lose()
    fetch("digits")  # the remote
    assert RAW.read_bytes() == original
    assert f"{entry}: damaged" in capsys.readouterr().err
    damage(dvc_project / f"store/files/md5/{md5[:2]}/{md5[2:]}")
    lose()
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"damaged entry of DVC's cache.*not free to download; obtain digits\.csv\.gz"
        ):
            fetch("digits")
        assert not RAW.parent.exists()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("s3://bucket/x", "dvc fetch data/raw/mine.dvc: .*requires 'dvc-s3' to be installed"),
        ("/mnt/nowhere", r"the remote store \(/mnt/nowhere: no such folder\) does not have all of it"),
        ("http://127.0.0.1:9/x", "the remote store does not have all of it, or cannot be reached"),
    ],
)
def test_why_a_remote_does_not_serve_is_told(
    address: str, reason: str, dvc_project: Path, place: Callable[..., Path], register: Callable[..., None]
) -> None:
    path = place("mine", "digits", b"precious", access="manual")
    shutil.rmtree(path.parent)
    config = dvc_project / ".dvc/config"
    config.write_text(config.read_text(encoding="utf-8").replace(str(dvc_project / "store"), address), encoding="utf-8")
    with pytest.raises(UserError, match=rf"{reason}.*not free to download; obtain raw\.bin"):
        fetch("mine")


def test_where_pin_and_bytes_agree_the_cache_is_a_convenience(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PIN.parent.mkdir(parents=True)
    shutil.copy(Path(fetching.__file__).parents[2] / PIN, PIN)
    for _ in range(2):  # outside of a DVC repository, the second time as the first
        fetch("digits")
        verify_raw("digits")
        assert "digits: as pinned, but not in DVC's cache (dvc add" in capsys.readouterr().err
        shutil.rmtree(RAW.parent)


def test_advice_on_data_placed_by_hand_costs_nobody_a_byte(
    dvc_project: Path, place: Callable[..., Path], register: Callable[..., None]
) -> None:
    """Whatever is wrong, who does what the message says ends with sound data and has lost no file."""
    path = place("mine", "digits", b"precious", access="manual")
    aside = dvc_project / "aside"

    def obey(error: pytest.ExceptionInfo[UserError]) -> None:
        found = re.search(r"move (\S+) away", str(error.value))
        assert found and not re.search("delete|rm |remove|checkout", str(error.value))
        Path(found.group(1)).rename(aside)

    for verb in (verify_raw, fetch, prepare):
        (path.parent / ".DS_Store").write_bytes(b"x")
        with pytest.raises(UserError, match=r"data/raw/mine/\.DS_Store: does not belong") as error:
            verb("mine")
        obey(error)
        assert aside.read_bytes() == b"x" and path.read_bytes() == b"precious"
        verify_raw("mine")
    path.write_bytes(b"preciouS")
    with pytest.raises(UserError, match=r"raw\.bin: was altered") as error:
        fetch("mine")
    obey(error)
    assert aside.read_bytes() == b"preciouS"
    with pytest.raises(UserError, match="not free to download; obtain raw"):
        fetch("mine")


def test_a_missing_file_comes_back_next_to_those_that_are_there(
    dvc_project: Path, site: tuple[Path, str], register: Callable[..., None]
) -> None:
    folder, address = site
    (folder / "a.bin").write_bytes(b"one")
    other = published(b"two", address) | {"name": "b.bin", "source": f"{address}/b.bin"}
    register("mine", "digits", files=[published(b"one", address), other])
    raw = dvc_project / "data/raw/mine"
    raw.mkdir(parents=True)
    (raw / "b.bin").write_bytes(b"two")  # by hand; its source serves nothing
    fetch("mine")
    pin, stored = read_pin(Path("data/raw/mine.dvc")), (raw / "b.bin").stat().st_ino
    (raw / "a.bin").unlink()
    (folder / "a.bin").unlink()
    with pytest.raises(UserError, match=r"a\.bin: is missing.*run `gessl fetch mine`$"):
        verify_raw("mine")
    fetch("mine")
    assert (raw / "a.bin").read_bytes() == b"one" and (raw / "b.bin").stat().st_ino == stored
    assert read_pin(Path("data/raw/mine.dvc")) == pin


@pytest.mark.parametrize(
    ("source", "install"), [("sklearn:gone.csv.gz", "scikit-learn"), ("matplotlib:fonts/ttf/Gone.ttf", "matplotlib")]
)
def test_a_package_without_the_file(source: str, install: str, project: Path, register: Callable[..., None]) -> None:
    register("mine", "digits", files=[{"name": "a.bin", "source": source}])
    with pytest.raises(UserError, match=rf"^{source}: not bundled with the installed one; install {install}>="):
        fetch("mine")
    assert not Path("data/raw/mine").exists()


def test_a_download_is_verified_and_pinned(
    dvc_project: Path, site: tuple[Path, str], register: Callable[..., None]
) -> None:
    folder, address = site
    content = bytes(range(256)) * 9000  # more than one block
    (folder / "a.bin").write_bytes(content)
    register("mine", "digits", files=[published(content, address)])
    fetch("mine")
    assert (dvc_project / "data/raw/mine/a.bin").read_bytes() == content
    pin = read_pin(Path("data/raw/mine.dvc"))
    assert (pin.nfiles, pin.size) == (1, len(content))
    assert [path.name for path in (dvc_project / "data/raw").iterdir() if path.name.startswith(".")] == []
    before = read_record(Path("results/raw/mine"))
    fetch("mine")  # nothing to do
    assert read_record(Path("results/raw/mine")) == before

    # the site now publishes other bytes, and the registry follows it: the pin still stands for the old ones
    (folder / "a.bin").write_bytes(b"new")
    register("mine", "digits", files=[published(b"new", address)])
    for lost in ("data/raw/mine", ".dvc/cache", "dvc-home"):
        shutil.rmtree(lost, ignore_errors=True)
    with pytest.raises(UserError, match=r"data/raw/mine\.dvc: the bytes now published at .* are not the pinned ones"):
        fetch("mine")
    assert not (dvc_project / "data/raw/mine").exists()
    assert read_pin(Path("data/raw/mine.dvc")) == pin


@pytest.mark.parametrize(
    ("served", "message"),
    [
        (b"right size, no", "MD5 of the file from .* is .*, not the published"),
        (b"short", "size of the file from .* is 5, not the published 14"),
        (None, r"a\.bin: cannot download \(File not found\)"),
    ],
)
def test_a_wrong_download_leaves_nothing(
    served: bytes | None, message: str, project: Path, site: tuple[Path, str], register: Callable[..., None]
) -> None:
    folder, address = site
    register("mine", "digits", files=[published(b"right size, ok", address)])
    if served is not None:
        (folder / "a.bin").write_bytes(served)
    with pytest.raises(UserError, match=message):
        fetch("mine")
    assert [path for path in project.rglob("*") if "mine" in path.name] == [project / "config/datasets/mine.yaml"]


def test_a_connection_that_breaks_off(
    project: Path, site: tuple[Path, str], register: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = site
    (folder / "a.bin").write_bytes(b"x" * 1000)
    monkeypatch.setattr(
        http.server.SimpleHTTPRequestHandler,
        "copyfile",
        lambda self, source, out: out.write(source.read(400)),
    )
    register("mine", "digits", files=[published(b"x" * 1000, address)])
    with pytest.raises(UserError, match=r"cannot download \(.*400 .*\); try again, or get the file elsewhere"):
        fetch("mine")
    assert not (project / "data/raw/mine").exists()


def test_a_download_without_end_is_cut_off(
    project: Path, site: tuple[Path, str], register: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = site
    (folder / "a.bin").write_bytes(b"x" * 1000)

    def endless(self: Any, source: Any, out: Any) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                out.write(bytes(2**16))

    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "copyfile", endless)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "send_header", lambda self, name, value: None)
    register("mine", "digits", files=[published(b"x" * 1000, address)])
    with pytest.raises(UserError, match=r"cannot download \(more than the published 1000 bytes\); try again"):
        fetch("mine")
    assert not (project / "data/raw/mine").exists()


@pytest.mark.parametrize("length", ["100, 100", "many", "١٠"])
def test_a_length_that_is_no_number(
    length: str,
    project: Path,
    site: tuple[Path, str],
    register: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, address = site
    (folder / "a.bin").write_bytes(b"x" * 100)
    send = http.server.SimpleHTTPRequestHandler.send_header

    def odd(self: Any, name: str, value: str) -> None:
        if name == "Content-Length":
            self._headers_buffer.append(f"{name}: {length}\r\n".encode())
        else:
            send(self, name, value)

    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "send_header", odd)
    register("mine", "digits", files=[published(b"x" * 100, address)])
    with pytest.raises(UserError, match=r"a\.bin: cannot download \(.*\); try again"):
        fetch("mine")
    assert not (project / "data/raw/mine").exists()


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("http://a[::1/a.bin", r"files\.0\.source: not an address"),
        ("http://a b/c", r"files\.0\.source: not an address"),
        ("http://127.0.0.1:port/x", r"files\.0\.source: not an address"),
        (f"http://{'a' * 70}.org/x", r"cannot download \(.*\); try again"),
    ],
)
def test_an_address_that_is_none(source: str, complaint: str, project: Path, register: Callable[..., None]) -> None:
    register("mine", "digits", files=[published(b"x", "http://x") | {"source": source}])
    with pytest.raises(UserError, match=complaint):
        fetch("mine")


def test_no_network(project: Path, register: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    register("mine", "digits", files=[published(b"x", "http://127.0.0.1:9")])
    with pytest.raises(UserError, match=r"cannot download \(.*refused.*place it in data/raw/mine"):
        fetch("mine")


def test_files_that_people_place_are_verified_and_pinned(dvc_project: Path, register: Callable[..., None]) -> None:
    file = published(b"precious", "https://example.org/register")
    register("mine", "digits", files=[file], access="registration")
    with pytest.raises(
        UserError, match=r"not free to download; obtain a\.bin \(https://example\.org/register/a\.bin\)"
    ):
        fetch("mine")
    folder = dvc_project / "data/raw/mine"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match="not free to download"):  # an empty folder is no data
        fetch("mine")
    (folder / "a.bin").write_bytes(b"preciouS")
    with pytest.raises(UserError, match=r"data/raw/mine/a\.bin: MD5"):
        fetch("mine")
    (folder / "a.bin").write_bytes(b"precious")
    (folder / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"notes\.txt: does not belong"):
        fetch("mine")
    assert not Path("data/raw/mine.dvc").exists()
    (folder / "notes.txt").unlink()
    fetch("mine")
    assert data_version("mine") == folder_md5({"a.bin": hashlib.md5(b"precious").hexdigest()})


def test_pinned_bytes_must_also_be_the_published_ones(
    place: Callable[..., Path], register: Callable[..., None]
) -> None:
    place("mine", "digits", b"pinned by mistake")
    (file,) = yaml.safe_load(Path("config/datasets/mine.yaml").read_text(encoding="utf-8"))["files"]
    register("mine", "mine", files=[file | {"md5": "0" * 32}])
    with pytest.raises(UserError, match=r"data/raw/mine/raw\.bin: MD5"):
        fetch("mine")


def test_without_dvc_present_data_are_enough(
    place: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    place("mine", "digits", b"bytes")
    shutil.rmtree("results")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "dvc" else find(name, *rest))
    fetch("mine")
    assert read_manifest("mine") is not None
    with pytest.raises(UserError, match=r"dvc: not installed.*gessl\[pipeline\]"):
        fetch("digits")


def test_outside_a_dvc_repository(project: Path) -> None:
    with pytest.raises(UserError, match=r"^dvc add data/raw/digits: .*not inside of a DVC repository[^\n]*$"):
        fetch("digits")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("outs: []", "not the DVC pin of one folder"),
        ("[", "not the DVC pin of one folder"),
        ("outs:\n- {md5: abc, size: 1, nfiles: 1, path: x}", "pins a file, not a folder"),
    ],
)
def test_a_broken_pin(text: str, message: str, project: Path) -> None:
    path = project / "data/raw/digits.dvc"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        data_version("digits")
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(UserError, match=r"not the DVC pin of one folder; restore it from git"):
        data_version("digits")
    path.unlink()
    with pytest.raises(UserError, match=r"no such pin; run `gessl fetch digits`"):
        data_version("digits")


def test_a_folder_with_subfolders_hashes_as_dvc_does(dvc_project: Path) -> None:
    folder = dvc_project / "data/raw/many"
    for name in ("b", "a/z", "a/b/c", "a.txt", "A", "ü x"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    dvc("add", "-q", "data/raw/many")
    assert read_pin(Path("data/raw/many.dvc")).md5 == folder_md5(folder_hashes(folder))


@pytest.mark.parametrize("name", ["digits", "glyphs", "glyphs-shift", "glyphs-small", "glyphs-ten"])
def test_the_committed_pin_is_that_of_the_bundled_files(name: str, project: Path) -> None:
    root = Path(fetching.__file__).resolve().parents[2]
    incoming = project / "copy"
    incoming.mkdir()
    for file in dataset(name).files:
        fetching._get(file, incoming / file.name, incoming)
    fetching._verify_files(dataset(name), incoming, dataset(name).files)
    assert read_pin(root / pin_of(name)).md5 == folder_md5(folder_hashes(incoming))


def test_a_manifest_may_be_as_large_as_the_pin_has_files(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no larger: of a million pictures it has more bytes and values than any other JSON file of ours."""
    monkeypatch.setattr(pinning, "JSON_BYTES", 100)
    monkeypatch.setattr(pinning, "MARKS", 10)
    folder = project / "data/raw/mine"
    hashes = {f"pictures/{n:02}/{'a' * 64}.jpeg": hashlib.md5(b"").hexdigest() for n in range(50)}
    for name in hashes:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    write_pin("mine")
    files = [
        {"path": name, "bytes": 10**9, "sha256": "b" * 64, "md5": md5, "source": None} for name, md5 in hashes.items()
    ]
    manifest = {"data_version": data_version("mine"), "files": files}
    path = project / "results/raw/mine/manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    assert read_manifest("mine") == manifest
    path.write_text(json.dumps(manifest | {"more": [0] * 500}), encoding="utf-8")
    assert read_manifest("mine") is None
