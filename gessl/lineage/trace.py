"""The trace: where a number, a run or a file comes from, back to the raw data, each hash checked on the way."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gessl.data.pin import folder_hashes, folder_md5, read_pin
from gessl.errors import UserError, printable
from gessl.files import sha256_file
from gessl.layout import RAW, RECORD, RESULTS, run_dir
from gessl.lineage.facts import SHORT, code_facts, mlflow_runs, record_facts
from gessl.lineage.find import find_cell, find_score, folder_of_record, is_run, score_rows
from gessl.lineage.record import parse_record, project_path, record_fault

Node = dict[str, Any]


def lineage_tree(identifier: str) -> Node:
    """The lineage as nested JSON values.

    Each node has `title`, `facts` (text by name), `verified` (true, false, or null where there is nothing to check)
    and `children`: what it was made from. An ancestor of several nodes is told once; later nodes have `told: true`.

    Args:
        identifier: the id of a report's cell, of a score, of a run, of a record (its first 8 or more digits will do),
            or the path of a file under `results/` or `data/raw`.

    Raises:
        UserError: nothing has that id, or no record claims what lies at that path.
    """
    tracer = _Tracer()
    path = project_path(Path(identifier))
    if path.is_relative_to(RESULTS) or path.is_relative_to(RAW):
        return tracer.path(path)
    if re.fullmatch("[0-9a-f]{16}|[0-9a-f]{12}", identifier):  # the shorter ones are of earlier versions
        if cell := find_cell(identifier):
            return tracer.cell(identifier, cell[1], cell[0])
        if score := find_score(identifier):
            return tracer.score(score[1], score[0])
    if is_run(identifier):
        return tracer.record(run_dir(identifier))
    if re.fullmatch(r"[0-9a-f]{8,64}", identifier):
        return tracer.record(folder_of_record(identifier))
    raise UserError(
        f"{identifier}: no such id; give the id of a cell (ids.json), a score (scores.csv), a run or a record, or a"
        f" path under {RESULTS} or {RAW}"
    )


def format_tree(tree: Node) -> str:
    """The lineage for people: ✓ marks what was verified now, ✗ what does not hold."""
    marks = list(_marks(tree))
    wrong = marks.count(False)
    verdict = f"✗ {wrong} of {len(marks)} checks failed" if wrong else f"✓ {len(marks)} checks passed"
    return "\n".join([*map(printable, _render(tree)), verdict])


def holds(tree: Node) -> bool:
    """Whether every check passed."""
    return all(_marks(tree))


def _node(title: str, verified: bool | None, facts: dict[str, str], children: list[Node]) -> Node:
    return {"title": title, "verified": verified, "facts": facts, "children": children}


class _Tracer:
    """Builds nodes; remembers what was told and what was hashed."""

    def __init__(self) -> None:
        self._told: set[Path] = set()
        self._hashes: dict[Path, str | None] = {}
        self._raw_md5: dict[Path, str] = {}
        self._mlflow = mlflow_runs()

    def _sha256(self, path: Path) -> str | None:
        if path not in self._hashes:
            self._hashes[path] = sha256_file(path) if path.is_file() else None
        return self._hashes[path]

    def cell(self, name: str, cell: dict[str, Any], ids: Path) -> Node:
        """A cell of a report, made of scores."""
        named = cell.get("scores")
        wanted = set(map(str, named)) if isinstance(named, list) else {"its scores"}
        record, _ = _load(ids.parent)
        paths = [Path(entry["path"]) for entry in record["inputs"]] if record else []
        sources = [path for path in paths if path.name == "scores.csv" and path.is_file()]
        scores = [self.score(row, path) for path in sources for row in score_rows(path, wanted)]
        lost = wanted - {score["facts"]["score"] for score in scores}
        facts = {"report": ids.parent.name, "kind": str(cell.get("kind", "")), **self._origin(ids)}
        if lost:
            facts["not found"] = ", ".join(sorted(lost))
        return _node(f"cell {name} = {cell.get('text')}", self._claimed(ids) and not lost, facts, scores)

    def score(self, row: dict[str, str], path: Path) -> Node:
        """One row of a score table."""
        interval = f", 95 % {row['ci_kind']} {row['ci_lo']} to {row['ci_hi']}" if row.get("ci_kind") else ""
        facts = {
            "score": row["id"],
            "run": row["run"],
            "protocol": f"{row['protocol']}, task {row['task']}, split {row['split']}, selection {row['selection']}",
            "over": f"n = {row['n']}{interval}",
            "in": path.as_posix(),
        }
        title = f"{row['metric']} = {row['value']} {row['unit']}"
        return _node(title, self._claimed(path), facts, [self.record(path.parent)])

    def path(self, path: Path) -> Node:
        """A file, or a folder that a step made."""
        if path.is_relative_to(RAW):
            return self._raw(path)
        folder = _maker_folder(path)
        if folder is None:
            raise UserError(f"{path}: no lineage record claims it; give a file that a step made")
        if path in (folder, folder / RECORD):
            return self.record(folder)
        if path.is_dir():  # a part of what the step made
            record, _ = _load(folder)
            if record and any(Path(output["path"]).is_relative_to(path) for output in record["outputs"]):
                return self.record(folder)
            raise UserError(f"{path}: no lineage record claims anything in it; give a file that a step made")
        facts = {"sha256": self._sha256(path) or "no such file", **self._origin(path)}
        return _node(path.as_posix(), self._claimed(path), facts, [self.record(folder)])

    def record(self, folder: Path) -> Node:
        """A step's record, what decided its outputs, and the records of what it read."""
        record, sound = _load(folder)
        if record is None:
            return _node(f"{folder / RECORD}: no readable record", False, {}, [])
        node = _node(f"{record['step']} {record['name']}", sound, {"record": record["id"][:SHORT]}, [])
        if folder in self._told:
            return node | {"told": True}
        self._told.add(folder)
        node["facts"] |= record_facts(record)
        if record["id"] in self._mlflow:
            node["facts"]["MLflow run"] = self._mlflow[record["id"]]
        makers: dict[Path, None] = {}
        for entry in record["inputs"]:
            path = Path(entry["path"])
            maker = _maker_folder(path) if entry["record"] else None
            if path.is_relative_to(RAW) and path.suffix == ".dvc":
                node["children"].append(self._pin(path, entry["sha256"]))
            else:
                node["children"].append(self._input(entry, maker))
            if maker:
                makers.setdefault(maker)
        node["children"] += [self.record(maker) for maker in makers]
        return node

    def _input(self, entry: dict[str, Any], maker: Path | None) -> Node:
        path = Path(entry["path"])
        verified = self._sha256(path) == entry["sha256"]
        facts = {"sha256": entry["sha256"][:SHORT]}
        if entry["record"]:
            record, _ = _load(maker) if maker else (None, False)
            if record is None or record["id"] != entry["record"]:
                verified = False
                facts["made again since"] = f"was an output of record {entry['record'][:SHORT]}"
        return _node(f"read {path}", verified, facts, [])

    def _pin(self, path: Path, recorded: str) -> Node:
        """A pin, as recorded, and whether the raw data are the pinned ones."""
        try:
            version = read_pin(path).md5
        except UserError as error:
            return _node(f"read {path}", False, {"fault": str(error)}, [])
        folder = path.with_suffix("")
        if folder not in self._raw_md5:
            self._raw_md5[folder] = folder_md5(folder_hashes(folder))
        verified = self._sha256(path) == recorded and self._raw_md5[folder] == version
        return _node(f"read {path}", verified, {"data version": version}, [])

    def _raw(self, path: Path) -> Node:
        name = path.relative_to(RAW).parts[0] if path != RAW else ""
        pin = path if path.suffix == ".dvc" else RAW / f"{name}.dvc"
        if not path.exists() or not pin.is_file():
            raise UserError(f"{path}: no such raw data with a pin; give a file of {RAW}/<dataset>/")
        below = self._pin(pin, sha256_file(pin))
        facts = {"sha256": self._sha256(path) or "a folder"}
        fetch = RESULTS / "raw" / pin.stem
        children = [below, *([self.record(fetch)] if (fetch / RECORD).is_file() else [])]
        return _node(path.as_posix(), below["verified"], facts, children)

    def _origin(self, path: Path) -> dict[str, str]:
        folder = _maker_folder(path)
        record, _ = _load(folder) if folder else (None, False)
        return {"by": f"record {record['id'][:SHORT]}, {code_facts(record)}"} if record else {}

    def _claimed(self, path: Path) -> bool:
        """Whether a sound record claims the file with the hash it has now."""
        folder = _maker_folder(path)
        record, sound = _load(folder) if folder else (None, False)
        entries = record["outputs"] if record else []
        return sound and any(e["path"] == path.as_posix() and e["sha256"] == self._sha256(path) for e in entries)


def _load(folder: Path) -> tuple[dict[str, Any] | None, bool]:
    """The record in `folder`, if it can be read, and whether it is unaltered."""
    try:
        data = (folder / RECORD).read_bytes()
        record = parse_record(data)
    except (OSError, ValueError):
        return None, False
    return record, record_fault(record, data) is None


def _maker_folder(path: Path) -> Path | None:
    return next((folder for folder in (path, *path.parents) if (folder / RECORD).is_file()), None)


def _marks(node: Node) -> Iterator[bool]:
    if node["verified"] is not None and not node.get("told"):
        yield node["verified"]
    for child in node["children"]:
        yield from _marks(child)


def _render(node: Node, first: str = "", rest: str = "") -> Iterator[str]:
    mark = {True: " ✓", False: " ✗", None: ""}[node["verified"]]
    children, facts = node["children"], [f"{key}: {value}" for key, value in node["facts"].items()]
    if node.get("told"):
        facts.append("see above")
    short = bool(facts) and not children and len(facts) <= 2
    yield f"{first}{node['title']}{mark}" + (f" ({', '.join(facts)})" if short else "")
    for fact in [] if short else facts:
        yield f"{rest}{'│' if children else ' '}  {fact}"
    for child in children:
        last = child is children[-1]
        yield from _render(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
