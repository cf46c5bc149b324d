"""Mutation proof: whatever is done to a tree of results, audit finds it; and it has nothing to say on an untouched one.

Three things cannot be found in the tree alone, since nothing in it tells of them: records written anew all the way up
to a last result (which no other record names), such a last result added or taken away as a whole, and a record that is
written anew as that of a step that was made again to the same bytes. The tree's head, noted elsewhere, tells.
`test_only_the_head_tells` holds that to exactly these.
"""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gessl.audit.audit import audit, format_verdict
from tests.support.toy_project import RUN, make_report, write_pin

TOPS = ("results", "data")
REPORT = Path("results/report/grid")
Place = str | Path


def _files() -> list[Path]:
    return sorted(path for top in TOPS for path in Path(top).rglob("*") if path.is_file())


def _folders() -> list[Path]:
    return sorted(path.parent for path in Path("results").rglob("record.json"))


def _snapshot() -> dict[str, bytes | str | None]:
    """What lies where: a file's bytes (as whoever opens it sees them), a dangling link's target, None for a folder."""

    def content(path: Path) -> bytes | str | None:
        return path.read_bytes() if path.is_file() else os.readlink(path) if path.is_symlink() else None

    return {str(path): content(path) for top in TOPS for path in Path(top).rglob("*")}


# Every mutation alters the file or folder that it is given, and returns a path that the audit must name.


def flip(path: Path, draw: random.Random) -> Place:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return path


def back_date(path: Path, draw: random.Random) -> Place:
    """Another byte, the same size, the same times."""
    facts = path.stat()
    flip(path, draw)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    return path


def truncate(path: Path, draw: random.Random) -> Place:
    os.truncate(path, draw.randrange(path.stat().st_size))
    return path


def append(path: Path, draw: random.Random) -> Place:
    path.write_bytes(path.read_bytes() + draw.randbytes(draw.randrange(1, 9)))
    return path


def shuffle(path: Path, draw: random.Random) -> Place:
    """Another file of the same size."""
    before = path.read_bytes()
    path.write_bytes(bytes(byte ^ 255 for byte in before) if before == before[::-1] else before[::-1])
    return path


def delete(path: Path, draw: random.Random) -> Place:
    path.unlink()
    return path


def rename(path: Path, draw: random.Random) -> Place:
    path.rename(path.with_name(f"_{path.name}"))
    return path


def swap(path: Path, draw: random.Random) -> Place:
    """With another file, of other bytes; a record with any."""
    mine, record = path.read_bytes(), path.name == "record.json"
    others = [other for other in _files() if record or other.name != "record.json"]
    other = draw.choice([other for other in others if other.read_bytes() != mine])
    path.write_bytes(other.read_bytes())
    other.write_bytes(mine)
    return path


def link(path: Path, draw: random.Random) -> Place:
    """To another file."""
    mine = path.read_bytes()
    other = draw.choice([other for other in _files() if other.read_bytes() != mine])
    path.unlink()
    path.symlink_to(other.absolute())
    return path


def dangling_link(path: Path, draw: random.Random) -> Place:
    path.unlink()
    path.symlink_to("nowhere")
    return path


def folder_instead(path: Path, draw: random.Random) -> Place:
    before = path.read_bytes()
    path.unlink()
    path.mkdir()
    if draw.random() < 0.5:
        (path / path.name).write_bytes(before)
    return path


def pipe_instead(path: Path, draw: random.Random) -> Place:
    path.unlink()
    os.mkfifo(path)
    return path


def delete_record(folder: Path, draw: random.Random) -> Place:
    (folder / "record.json").unlink()
    return folder / "record.json"


def duplicate_folder(folder: Path, draw: random.Random) -> Place:
    copy = folder.with_name(f"{folder.name}-copy")
    shutil.copytree(folder, copy)
    return copy / "record.json"


def rename_folder(folder: Path, draw: random.Random) -> Place:
    folder.rename(folder.with_name(f"{folder.name}-renamed"))
    return folder.with_name(f"{folder.name}-renamed") / "record.json"


def swap_folders(folder: Path, draw: random.Random) -> Place:
    other = draw.choice([other for other in _folders() if other != folder])
    folder.rename("aside")
    other.rename(folder)
    Path("aside").rename(other)
    return folder / "record.json"


def swap_records(folder: Path, draw: random.Random) -> Place:
    other = draw.choice([other for other in _folders() if other != folder])
    return swap_two(folder / "record.json", other / "record.json")


def swap_two(one: Path, other: Path) -> Place:
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)
    return one


def add_file(folder: Path, draw: random.Random) -> Place:
    added = folder / draw.choice(["x.csv", "more/encoder.safetensors", ".hidden", "record.json.bak"])
    added.parent.mkdir(exist_ok=True)
    added.write_bytes(draw.randbytes(9))
    return added


def edit_record(folder: Path, draw: random.Random) -> Place:
    """Anything in it, a word or a whole part, its id left as it was (or that alone)."""
    record = _read(folder)
    holder, key = draw.choice(list(_places(record)))
    holder[key] = draw.choice([value for value in (None, "x", 7, [], {}) if value != holder[key]])
    _write(folder, record)
    return folder / "record.json"


def edit_and_sign_record(folder: Path, draw: random.Random) -> Place:
    """One field, and its id to match; the records that name it stay."""
    record = _read(folder)
    build, details = record["predicate"]["buildDefinition"], record["predicate"]["runDetails"]
    build["internalParameters"]["command"] = ["gessl", "pretrain", "other"]
    part, key, value = draw.choice(
        [
            (build["externalParameters"], "seed", 99),
            (build["externalParameters"], "config", {"lr": 9}),
            (build["internalParameters"], "notes", {}),
            (details["builder"], "id", "urn:gessl:host:x"),
            (details["metadata"], "gessl_seconds", 0.125),
        ]
    )
    part[key] = value
    _write(folder, _signed(record))
    return _folder_after(folder)


def rehash_partly(folder: Path, draw: random.Random) -> Place:
    """An output, its record, and some of the records that it comes from, each to match; not the last."""
    flip(draw.choice([path for path in folder.rglob("*") if path.is_file() and path.name != "record.json"]), draw)
    chain = _chain()
    first = chain.index(folder)
    last = draw.randrange(first, len(chain) - 1)
    _forge(chain[: last + 1])
    forged = set(chain[first : last + 1])
    return next(
        after
        for after in chain[last + 1 :]
        if any(Path(entry["name"]).parent in forged for entry in _inputs(_read(after)))
    )


OF_FILES = (
    *(flip, back_date, truncate, append, shuffle, delete, rename, swap, link),
    *(dangling_link, folder_instead, pipe_instead),
)
OF_FOLDERS = (delete_record, duplicate_folder, rename_folder, swap_folders, swap_records, add_file, edit_record)
OF_MADE_FROM = (edit_and_sign_record, rehash_partly)  # folders that others were made from
ROUNDS = 3  # of what is drawn for each folder


def _read(folder: Path) -> dict[str, Any]:
    """The in-toto Statement as it lies there."""
    record: dict[str, Any] = json.loads((folder / "record.json").read_bytes())
    return record


def _write(folder: Path, record: dict[str, Any]) -> None:
    """As docs/formats.md says, in words of our own."""
    (folder / "record.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _inputs(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The files that it names as read; the first dependency is the code."""
    return list(record["predicate"]["buildDefinition"]["resolvedDependencies"][1:])


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in it where a value stands: its holder and its key there."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def _signed(record: dict[str, Any]) -> dict[str, Any]:
    """With the id that its content has."""
    metadata = record["predicate"]["runDetails"]["metadata"]
    metadata.pop("invocationId", None)
    metadata["invocationId"] = _sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode())
    return record


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _chain() -> list[Path]:
    """The folders with records, from the raw data to the report."""
    order = ("raw", "data", "tasks", "runs", "scores", "report")
    return sorted(_folders(), key=lambda folder: order.index(folder.parts[1]))


def _folder_after(folder: Path) -> Path:
    """One that was made from `folder`."""
    return next(
        other for other in _chain() if any(Path(e["name"]).is_relative_to(folder) for e in _inputs(_read(other)))
    )


def _forge(folders: list[Path]) -> None:
    """Write these records anew, to match the files as they are and each other: the skilled forger's work."""
    ids: dict[str, str] = {}
    for folder in folders:
        record = _read(folder)
        metadata = record["predicate"]["runDetails"]["metadata"]
        before = metadata["invocationId"]
        for entry in _inputs(record) + record["subject"]:
            data = Path(entry["name"]).read_bytes()
            entry["digest"]["sha256"], entry["annotations"]["bytes"] = _sha256(data), len(data)
        for entry in _inputs(record):
            maker = entry["annotations"]["record"]
            entry["annotations"]["record"] = ids.get(maker, maker)
        _write(folder, _signed(record))
        ids[before] = metadata["invocationId"]


@pytest.fixture
def fresh(project: Path, template: Path) -> Callable[[], None]:
    """Makes the project what it was."""

    def restore() -> None:
        for top in TOPS:
            shutil.rmtree(top)
            shutil.copytree(template / top, top)

    return restore


def _cases(operation: Callable[[Path, random.Random], Place]) -> Iterator[tuple[str, Path]]:
    if operation in OF_FILES:
        yield from (("", path) for path in _files())
        return
    folders = _chain() if operation in OF_FOLDERS else _chain()[:-1]
    yield from ((str(number), folder) for number in range(ROUNDS) for folder in folders)


def test_there_are_hundreds_over_every_kind_of_artifact(project: Path) -> None:
    cases = [(operation, path) for operation in OF_FILES + OF_FOLDERS + OF_MADE_FROM for _, path in _cases(operation)]
    assert len(cases) >= 300
    touched = {path.name for _, path in cases}
    artifacts = {
        *("images.bin", "labels.csv", "toy.dvc", "manifest.json", "images.npy", "index.csv", "card.json", "labels.npz"),
        *("episodes.npz", "encoder.safetensors", "model.safetensors", "metrics.jsonl", "config.json", "record.json"),
        *("scores.csv", "outcomes.npz", "sigma-report.html", "main.csv", "sigma.svg", "ids.json"),
    }
    assert artifacts <= touched


@pytest.mark.parametrize("operation", OF_FILES + OF_FOLDERS + OF_MADE_FROM, ids=lambda operation: operation.__name__)
def test_every_mutation_is_found(
    operation: Callable[[Path, random.Random], Place], project: Path, fresh: Callable[[], None]
) -> None:
    before = _snapshot()
    for seed, path in list(_cases(operation)):
        named = str(operation(path, random.Random(f"{operation.__name__} {path} {seed}")))
        assert _snapshot() != before, f"{path}, {seed!r}: nothing was altered"
        verdict = audit()
        assert verdict.exit_code == 1, f"{path}, {seed!r}: not found"
        text = [f"{finding.path} {finding.what}" for finding in verdict.findings]
        assert any(named in line for line in text), f"{path}, {seed!r}: {named} is not named in {text}"
        fresh()
    assert audit().ok


@pytest.mark.parametrize("seed", range(2))
def test_only_the_head_tells(project: Path, fresh: Callable[[], None], seed: int) -> None:
    """Of a forgery up to the last result or as one made again, and of a last result that is gone or is new."""
    before, head = _snapshot(), audit().head

    def forged(path: Path) -> None:
        flip(path, random.Random(f"{seed} {path}"))
        if path.is_relative_to("data"):
            _pin_anew()
        _forge(_chain())

    def edited(folder: Path) -> None:
        record = _read(folder)
        record["predicate"]["runDetails"]["builder"]["id"] += f" {seed}"
        _write(folder, _signed(record))

    def said_to_be_made_again(folder: Path) -> None:
        record = _read(folder)
        for output in record["subject"]:
            output["annotations"]["earlier"] = [record["predicate"]["runDetails"]["metadata"]["invocationId"]]
        record["predicate"]["buildDefinition"]["externalParameters"]["seed"] = 99
        _write(folder, _signed(record))

    outputs = [path for path in _files() if path.name not in ("record.json", "toy.dvc", "manifest.json")]
    cases: list[tuple[Callable[[], None], Place]] = [(lambda path=path: forged(path), path) for path in outputs]  # type: ignore[misc]
    cases += [
        (lambda: edited(REPORT), REPORT),
        *((lambda folder=folder: said_to_be_made_again(folder), folder) for folder in _chain()),  # type: ignore[misc]
        (lambda: shutil.rmtree(REPORT), REPORT),
        (lambda: make_report("another", RUN), "results/report/another"),
    ]
    for mutate, place in cases:
        mutate()
        assert _snapshot() != before
        found = [(finding.kind, finding.path) for finding in audit(expected=head).findings]
        if Path(place).name in ("outcomes.npz", "scores.csv"):  # they may show by not fitting each other
            found = [finding for finding in found if Path(finding[1]).parent != Path(place).parent]
        assert found == [("altered", "results")], f"{place}: if it shows without the head, docs/audit.md should say so"
        fresh()
    assert audit(expected=head).ok


def _pin_anew() -> None:
    """The pin, the manifest and the settings of the raw data as they are now."""
    version = write_pin("toy")
    manifest = Path("results/raw/toy/manifest.json")
    listing = json.loads(manifest.read_text(encoding="utf-8"))
    for entry in listing["files"]:
        data = Path("data/raw/toy", entry["path"]).read_bytes()
        entry |= {"sha256": _sha256(data), "md5": hashlib.md5(data).hexdigest()}
    manifest.write_text(json.dumps(listing | {"data_version": version}), encoding="utf-8")
    record = _read(Path("results/data/toy"))
    record["predicate"]["buildDefinition"]["externalParameters"]["config"] = {"data_version": version}
    _write(Path("results/data/toy"), record)


def test_no_false_alarm(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    head = audit().head
    for path in _files():
        os.utime(path, (draw.randrange(2**31), draw.randrange(2**31)))
        path.chmod(0o444)
    assert audit(expected=head).ok, format_verdict(audit())
    elsewhere = tmp_path / "else where"
    shutil.copytree(project, elsewhere)
    monkeypatch.chdir(elsewhere)
    verdict = audit(expected=head)
    assert verdict.ok, format_verdict(verdict)
