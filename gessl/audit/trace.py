"""The trace: where a number, a run or a file comes from, back to the raw data, each hash checked on the way."""

import re
from pathlib import Path
from typing import Any

from gessl.audit.find import find_cells, find_score, folder_of_record, is_run, score_rows
from gessl.audit.outcomes import fault_of_score
from gessl.audit.tree import Node, make_node
from gessl.data.pin import folder_hashes, folder_md5, read_pin
from gessl.errors import UserError
from gessl.files import has_content, sha256_file
from gessl.layout import RAW, RECORD, RESULTS, run_dir
from gessl.npz import DAMAGE
from gessl.records.facts import SHORT, code_facts, mlflow_runs, record_facts
from gessl.records.record import FileState, Input, Output, Record, is_maker, load_record, project_path
from gessl.tables.scores import OUTCOMES, read_outcomes

TABLE = "scores.csv"
EARLIER = 12  # digits of the ids of cells and scores in earlier versions
LONGEST = 50  # most steps in a row that are followed; from raw data to a report there are six
SHOWN = 5  # wrong outputs of a step that are named


def lineage_tree(identifier: str) -> Node:
    """The lineage as nested JSON values.

    Each node has `title`, `facts` (text by name), `verified` (true, false, or null where there is nothing to check)
    and `children`: what it was made from. An ancestor of several nodes is given once; where it comes up again, its node
    has `repeated: true` and no children.

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
        if cells := find_cells(identifier):
            return tracer.cell(identifier, cells)
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


class _Tracer:
    """Builds nodes; remembers what was shown and what was hashed."""

    def __init__(self) -> None:
        self._shown: set[Path] = set()
        self._depth = 0
        self._compared: dict[tuple[str, int, str], bool] = {}
        self._raw_md5: dict[Path, str] = {}
        self._mlflow = mlflow_runs()

    def _as_recorded(self, entry: FileState) -> bool:
        """Whether the file of a record's entry is there, byte for byte."""
        wanted = (entry["path"], entry["bytes"], entry["sha256"])
        if wanted not in self._compared:
            self._compared[wanted] = has_content(*wanted)
        return self._compared[wanted]

    def cell(self, name: str, found: list[tuple[Path, dict[str, Any]]]) -> Node:
        """A cell of a report, made of scores, and whether all reports that hold it say the same."""
        ids, cell = found[0]
        named = cell.get("scores")
        wanted = set(map(str, named)) if isinstance(named, list) else {"its scores"}
        record, _ = _load(ids.parent)
        sources = [entry for entry in record["inputs"] if Path(entry["path"]).name == TABLE] if record else []
        scores = [self.score(row, Path(entry["path"]), entry) for entry in sources for row in self._rows(entry, wanted)]
        lost = wanted - {score["facts"]["score"] for score in scores}
        facts = {"report": ids.parent.name, "kind": str(cell.get("kind", "")), **self._origin(ids)}
        if lost:
            facts["not found"] = ", ".join(sorted(lost))
        children = [*scores, self._number(name, cell, record, wanted)]
        for other, same in found[1:]:
            agrees = self._claimed(other) and same == cell
            children.append(make_node(f"also in {other}: {same.get('text')}", agrees, self._origin(other), []))
        return make_node(f"cell {name} = {cell.get('text')}", self._claimed(ids) and not lost, facts, children)

    @staticmethod
    def _rows(entry: FileState, wanted: set[str]) -> list[dict[str, str]]:
        return list(score_rows(Path(entry["path"]), wanted))

    def _number(self, name: str, cell: dict[str, Any], record: Record | None, wanted: set[str]) -> Node:
        """Whether the cell's text is what its scores give, computed as the report does."""
        title = f"the number of cell {name}, from its scores"
        if record is None or "runs" not in record["config"] or len(name) == EARLIER:
            why = "the report is of an earlier version, or its record states no plan"
            return make_node(title, None, {"why": why}, [])
        from gessl.report.recompute import recompute  # a second: it imports pandas

        tables = {path.parts[2] for path in (Path(entry["path"]) for entry in record["inputs"]) if path.name == TABLE}
        try:
            made = recompute(record["config"], tables, wanted).get(name)
        except (UserError, ValueError, TypeError, LookupError, AttributeError) as error:
            return make_node(title, False, {"fault": str(error)}, [])
        return make_node(title, made == cell, {"made again": str(made and made["text"])}, [])

    def score(self, row: dict[str, str], path: Path, read: FileState | None = None) -> Node:
        """One row of a score table; `read` is what the record of a report says of that table."""
        interval = f", 95 % {row['ci_kind']} {row['ci_lo']} to {row['ci_hi']}" if row.get("ci_kind") else ""
        facts = {
            "score": row["id"],
            "run": row["run"],
            "protocol": f"{row['protocol']}, task {row['task']}, split {row['split']}, selection {row['selection']}",
            "over": f"n = {row['n']}{interval}",
            "in": path.as_posix(),
        }
        title = f"{row['metric']} = {row['value']} {row['unit']}"
        same = read is None or self._as_recorded(read)
        if not same:
            facts["made again since"] = "the report was made from another table"
        children = [self.record(path.parent), self._outcomes(row, path)]
        return make_node(title, self._claimed(path) and same, facts, children)

    @staticmethod
    def _outcomes(row: dict[str, str], path: Path) -> Node:
        """Whether a score is the mean of its test items' outcomes, which lie next to it."""
        title, outcomes = f"{row['metric']} of {row['task']}, from its outcomes", path.with_name(OUTCOMES)
        if row["from_outcomes"] == "sum" or not outcomes.is_file():
            return make_node(title, None, {"why": "there are none, or the score is a sum over an unknown number"}, [])
        try:
            fault = fault_of_score(row, read_outcomes(path.parent))
        except DAMAGE as error:
            fault = str(error)
        return make_node(title, not fault, {"fault": fault} if fault else {}, [])

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
        entry = _output(path)
        facts = {"sha256": entry["sha256"] if entry else "not recorded", **self._origin(path)}
        return make_node(path.as_posix(), self._claimed(path), facts, [self.record(folder)])

    def record(self, folder: Path) -> Node:
        """A step's record, what decided its outputs, and the records of what it read."""
        record, sound = _load(folder)
        if record is None:
            return make_node(f"{folder / RECORD}: no readable record", False, {}, [])
        node = make_node(f"{record['step']} {record['name']}", sound, {"record": record["id"][:SHORT]}, [])
        if folder in self._shown:
            return node | {"repeated": True}
        self._shown.add(folder)
        if self._depth == LONGEST:
            return make_node(f"{node['title']}: more than {LONGEST} steps", False, node["facts"], [])
        node["facts"] |= record_facts(record)
        if record["id"] in self._mlflow:
            node["facts"]["MLflow run"] = self._mlflow[record["id"]]
        makers: dict[Path, None] = {}
        for entry in record["inputs"]:
            path = Path(entry["path"])
            maker = _maker_folder(path) if entry["record"] else None
            if path.is_relative_to(RAW) and path.suffix == ".dvc":
                node["children"].append(self._pin(path, self._as_recorded(entry)))
            else:
                node["children"].append(self._input(entry, maker))
            if maker:
                makers.setdefault(maker)
        node["children"].append(self._outputs(record))
        self._depth += 1
        node["children"] += [self.record(maker) for maker in makers]
        self._depth -= 1
        return node

    def _outputs(self, record: Record) -> Node:
        """All that a step wrote, as one node."""
        outputs = record["outputs"]
        wrong = [output["path"] for output in outputs if not self._as_recorded(output)]
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        facts = {"altered or missing": ", ".join(wrong[:SHOWN]) + more} if wrong else {}
        return make_node(f"wrote {len(outputs)} file{'s' if len(outputs) != 1 else ''}", not wrong, facts, [])

    def _input(self, entry: Input, maker: Path | None) -> Node:
        path = Path(entry["path"])
        verified = self._as_recorded(entry)
        facts = {"sha256": entry["sha256"][:SHORT]}
        if entry["record"]:
            record, _ = _load(maker) if maker else (None, False)
            if record is None or not is_maker(record, entry):
                verified = False
                facts["made again since"] = f"was an output of record {entry['record'][:SHORT]}"
        return make_node(f"read {path}", verified, facts, [])

    def _pin(self, path: Path, recorded: bool) -> Node:
        """A pin, whether it is as recorded, and whether the raw data are the pinned ones."""
        try:
            pinned = read_pin(path)
        except UserError as error:
            return make_node(f"read {path}", False, {"fault": str(error)}, [])
        folder = path.with_suffix("")
        if folder not in self._raw_md5:
            self._raw_md5[folder] = folder_md5(folder_hashes(folder, pinned))
        verified = recorded and self._raw_md5[folder] == pinned.md5
        return make_node(f"read {path}", verified, {"data version": pinned.md5}, [])

    def _raw(self, path: Path) -> Node:
        name = path.relative_to(RAW).parts[0] if path != RAW else ""
        pin = path if path.suffix == ".dvc" else RAW / f"{name}.dvc"
        if not path.exists() or not pin.is_file():
            raise UserError(f"{path}: no such raw data with a pin; give a file of {RAW}/<dataset>/")
        below = self._pin(pin, True)
        whole = sha256_file(path) if below["verified"] and path.is_file() else None
        facts = {"sha256": whole or ("a folder" if path.is_dir() else "not read")}
        fetch = RESULTS / "raw" / pin.stem
        children = [below, *([self.record(fetch)] if (fetch / RECORD).is_file() else [])]
        return make_node(path.as_posix(), below["verified"], facts, children)

    def _origin(self, path: Path) -> dict[str, str]:
        folder = _maker_folder(path)
        record, _ = _load(folder) if folder else (None, False)
        return {"by": f"record {record['id'][:SHORT]}, {code_facts(record)}"} if record else {}

    def _claimed(self, path: Path) -> bool:
        """Whether a sound record claims the file with the hash it has now."""
        folder = _maker_folder(path)
        _, sound = _load(folder) if folder else (None, False)
        entry = _output(path)
        return sound and entry is not None and self._as_recorded(entry)


def _output(path: Path) -> Output | None:
    """What the record around a file says of it."""
    folder = _maker_folder(path)
    record, _ = _load(folder) if folder else (None, False)
    return next((e for e in record["outputs"] if e["path"] == path.as_posix()), None) if record else None


def _load(folder: Path) -> tuple[Record | None, bool]:
    """The record in `folder`, if it can be read, and whether it is unaltered."""
    try:
        record, fault = load_record(folder / RECORD)
    except (OSError, ValueError):
        return None, False
    return record, fault is None


def _maker_folder(path: Path) -> Path | None:
    return next((folder for folder in (path, *path.parents) if (folder / RECORD).is_file()), None)
