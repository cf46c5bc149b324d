"""The lineage of the page: each score, record and data version of its numbers, once, joined by links.

Read from the lineage records alone, following the ids in them from the runs to the raw data, so that nothing is shown
that the report's own record does not lead to.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gessl.layout import RAW
from gessl.records.facts import SHORT, record_facts
from gessl.records.record import Input, Record, is_maker
from gessl.report.collect import Collected
from gessl.report.facts import environment_anchor
from gessl.report.style import record_anchor
from gessl.report.tables import number

SHARED = ("code", "lock", "environment")  # said once for all records with the same environment


@dataclass(frozen=True)
class ScoreRow:
    """A row of a run's score table: its id, what it measures and the number as text."""

    id: str
    what: str
    text: str


@dataclass(frozen=True)
class Source:
    """What a node was made from: the anchor of another node (empty: a file outside the chain), and the files read."""

    anchor: str
    title: str
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Origin:
    """A node: a record, or a version of raw data.

    Attributes:
        anchor: its id on the page, `r-` or `d-` and digits of a hash.
        step, name: what was done, to what.
        note: what a picture has room for (seed and commit, or the data version).
        facts: what decided the outputs, text by name.
        environment: anchor of the environment it was made in; empty for raw data.
        sources: what it was made from.
        scores: the scores that it made.
    """

    anchor: str
    step: str
    name: str
    note: str
    facts: dict[str, str]
    environment: str = ""
    sources: tuple[Source, ...] = ()
    scores: tuple[ScoreRow, ...] = ()


def origins(collected: Collected, records: dict[str, Record | None]) -> list[Origin]:
    """The nodes of the page, those of a run together, results first and raw data last."""
    scores = _scores(collected)
    made = {output["path"]: record for record in records.values() if record for output in record["outputs"]}
    pins: dict[str, Origin] = {}
    nodes = []
    for digits, record in records.items():
        if record is None:
            facts = {"made again since": "its outputs were replaced by those of another record"}
            nodes.append(Origin(record_anchor(digits), "record", digits[:SHORT], "made again since", facts))
            continue
        nodes.append(_of_record(record, made, scores))
        for pin in _pins(record, collected):
            if pin.note or pin.anchor not in pins:  # only the step that read the raw data knows their version
                pins[pin.anchor] = pin
    return [*nodes, *pins.values()]


def _scores(collected: Collected) -> dict[str, tuple[ScoreRow, ...]]:
    """Scores by the id of the record that made them; a run that two variants share is there once."""
    rows: dict[str, dict[str, ScoreRow]] = {}
    for row in collected.scores.itertuples():
        text = f"{number(row.value, row.unit)} {row.unit}"
        rows.setdefault(row.record, {})[row.id] = ScoreRow(row.id, f"{row.protocol} · {row.task} · {row.metric}", text)
    return {record: tuple(found.values()) for record, found in rows.items()}


def _of_record(record: Record, made: dict[str, Record], scores: dict[str, tuple[ScoreRow, ...]]) -> Origin:
    commit = record["code"].get("commit")
    seed = "" if record["seed"] is None else f"seed {record['seed']} · "
    facts = {name: text for name, text in record_facts(record).items() if name not in SHARED}
    return Origin(
        record_anchor(record["id"]),
        record["step"],
        record["name"],
        f"{seed}{f'commit {commit[:7]}' if commit else 'no commit'}",
        {"record": record["id"][:SHORT], **facts},
        environment_anchor(record),
        _sources(record["inputs"], made),
        scores.get(record["id"], ()),
    )


def _sources(inputs: Iterable[Input], made: dict[str, Record]) -> tuple[Source, ...]:
    """The inputs by what made them; `made` are the records of the chain by the paths of their outputs."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for entry in inputs:
        path = Path(entry["path"])
        if entry["record"]:
            maker = made.get(entry["path"])
            if maker and is_maker(maker, entry):
                key = record_anchor(maker["id"]), f"{maker['step']} {maker['name']}"
            else:
                key = record_anchor(entry["record"]), f"record {entry['record'][:SHORT]}"
        elif _is_pin(path):
            key = pin_anchor(entry), "raw data"
        else:
            key = "", "raw file" if path.is_relative_to(RAW) else "file"
        found.setdefault(key, []).append((path.as_posix(), entry["sha256"][:SHORT]))
    return tuple(Source(anchor, title, tuple(files)) for (anchor, title), files in found.items())


def pin_anchor(entry: Input) -> str:
    """The id on the page of the raw data that the input `entry`, a DVC pin, stands for."""
    return f"d-{entry['sha256'][:SHORT]}"


def _pins(record: Record, collected: Collected) -> Iterable[Origin]:
    card = collected.cards.get(record["name"], {}) if record["step"] == "prepare" else {}
    version = str(card.get("data_version", ""))
    for entry in record["inputs"]:
        if not entry["record"] and _is_pin(Path(entry["path"])):
            facts = {"pin": entry["path"], "sha256 of the pin": entry["sha256"][:SHORT]}
            facts |= {"data version": version} if version else {}
            yield Origin(pin_anchor(entry), "raw data", Path(entry["path"]).stem, version, facts)


def _is_pin(path: Path) -> bool:
    return path.is_relative_to(RAW) and path.suffix == ".dvc"
