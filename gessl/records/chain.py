"""The chain that leads to records: everything that they were made from, back to what people wrote or downloaded."""

from collections.abc import Iterable
from pathlib import Path

from gessl.records.record import Record, is_maker, maker_of


def chain(records: Iterable[Record]) -> dict[str, Record | None]:
    """`records` and all records that they lead to, by id, in the order of discovery.

    None stands for a record that is no longer there: what it made was made again since, to other bytes. Where they are
    the same, the record that is there now stands in its place. Reads records only.

    Raises:
        UserError: a record is broken.
    """
    found: dict[str, Record | None] = {record["id"]: record for record in records}
    waiting = [record for record in found.values() if record]
    replaced: set[tuple[str, str | None]] = set()
    for record in waiting:
        for entry in record["inputs"]:
            named = entry["path"], entry["record"]
            if entry["record"] is None or entry["record"] in found or named in replaced:
                continue
            maker = maker_of(Path(entry["path"]))
            if maker is None or not is_maker(maker, entry):
                found[entry["record"]] = None
                continue
            if maker["id"] != entry["record"]:
                replaced.add(named)
            if maker["id"] not in found:
                found[maker["id"]] = maker
                waiting.append(maker)
    return found
