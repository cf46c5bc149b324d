"""The chain behind records: everything that they were made from, back to what people wrote or downloaded."""

from collections.abc import Iterable
from pathlib import Path

from gessl.records.record import Record, maker_of


def chain(records: Iterable[Record]) -> dict[str, Record | None]:
    """`records` and all records that they lead to, by id, in the order of discovery.

    None stands for a record that is no longer there: what it made was made again since. Reads records only, each once.

    Raises:
        UserError: a record is broken.
    """
    found: dict[str, Record | None] = {record["id"]: record for record in records}
    waiting = [record for record in found.values() if record]
    for record in waiting:
        for entry in record["inputs"]:
            if entry["record"] and entry["record"] not in found:
                maker = maker_of(Path(entry["path"]))
                same = maker is not None and maker["id"] == entry["record"]
                found[entry["record"]] = maker if same else None
                waiting += [maker] if maker is not None and same else []
    return found
