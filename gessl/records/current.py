"""Whether what lies in a folder is what its step would make now, by its record and the content of its inputs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gessl.files import JSON_BYTES, as_json, read_bounded, sha256_file
from gessl.layout import LOCK, RAW, RECORD
from gessl.records.provenance import step_fingerprint
from gessl.records.record import Record, is_maker, parse_record

MakerOf = Callable[[Path], Record | None]


def is_current(step: str, folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether `folder` holds, whole, what the step would make of these settings and of its inputs as they are now."""
    record = read_if_any(folder)
    if record is None or record["step"] != step or why_outdated(step, record, config, lock_hash(), _maker):
        return False
    return all(
        (path := Path(output["path"])).is_file() and path.stat().st_size == output["bytes"]
        for output in record["outputs"]
    )


def read_if_any(folder: Path) -> Record | None:
    """The record in `folder`; None where there is none yet, or a broken one, which the audit names."""
    try:
        return parse_record(read_bounded(folder / RECORD, JSON_BYTES))
    except (OSError, ValueError):
        return None


def lock_hash() -> str | None:
    """The hash of the environment's lock, if there is one."""
    return sha256_file(LOCK) if LOCK.is_file() else None


def why_outdated(
    step: str, record: Record, config: Mapping[str, Any] | None, lock: str | None, maker_of: MakerOf
) -> str | None:
    """Why the step would make something else now; None if it would not.

    Args:
        step: its verb.
        record: of what is there.
        config: the settings that decide it now; None where they are not asked about.
        lock: see `lock_hash`.
        maker_of: the record of what made an input as it is now (`id` and `outputs`); None where it is not known.
    """
    recorded = record["code"].get("fingerprint")
    if recorded is not None and recorded != step_fingerprint(step, record["config"]):
        return "the sources that its step uses changed since"
    if record["environment"].get("lock") != lock:
        return f"{LOCK} changed since"
    if config is not None and record["config"] != as_json(config):
        return "its settings changed since"
    for entry in record["inputs"]:
        path = Path(entry["path"])
        if entry["record"] is None:
            # raw data are compared with their pin, weights with the hash in their entry
            small = not path.is_relative_to(RAW.parent) or path.suffix == ".dvc"
            if small and path.is_file() and sha256_file(path) != entry["sha256"]:
                return f"{path} changed since"
        elif (maker := maker_of(path)) and not is_maker(maker, entry):
            return f"{path} was made again since"
    return None


def _maker(path: Path) -> Record | None:
    return read_if_any(path.parent)
