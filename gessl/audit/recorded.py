"""The spec of a recorded step, put together from what its record holds."""

import re
from pathlib import Path
from typing import Any

from gessl.audit.find import read_object
from gessl.errors import UserError
from gessl.identity import DIGITS, science_hash
from gessl.layout import CHECKPOINT, DEPTHS, run_dir
from gessl.records.record import Record

NAME = re.compile(r"\w[\w.+-]{0,254}", re.ASCII)  # of what a step makes, or a part of it: no option, and no path


def recorded_spec(record: Record, tree: Path) -> dict[str, Any] | None:
    """The spec of a step, for its verb; None for `prepare`, which takes a name alone.

    Args:
        record: of the step, perhaps a stranger's; the step itself checks its spec.
        tree: the project in which the step will run, with its inputs.

    Raises:
        UserError: its name is that of nothing that such a step makes, or settings are missing.
    """
    name, step, config = record["name"], record["step"], record["config"]
    parts = name.split("/")
    if len(parts) != DEPTHS.get("scores" if step == "evaluate" else step, 1) or not all(map(NAME.fullmatch, parts)):
        raise UserError(f"{name}: nothing that {step} makes is called so; the step cannot be rebuilt")
    try:
        if step == "tasks":
            dataset, _, seed = parts[0].rpartition("-s")
            return {"dataset": dataset, "seed": int(seed), "protocols": [config]}
        if step == "pretrain":
            if not name.endswith(science_hash(config)[:DIGITS]):
                raise UserError(f"{name}: its recorded settings are not those of its id; the run cannot be rebuilt")
            return {"run": name, "science": config, "efficiency": _efficiency(record), "trunk": _trunk(record)}
        if step == "evaluate":
            protocol = {key: config[key] for key in ("protocol", "settings")}
            rest = {"target": parts[1], "protocols": [protocol], "efficiency": _efficiency(record), "bundled": False}
            return {"subject": _subject(record, parts[0], tree), **rest}
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{name}: its record lacks {error}; the step cannot be rebuilt") from None
    return config if step == "report" else None


def _trunk(record: Record) -> str | None:
    """The run whose state a run went on from, if any."""
    states = (Path(entry["path"]) for entry in record["inputs"] if entry["path"].endswith(f"/{CHECKPOINT}"))
    return next((path.parent.name for path in states), None)


def _subject(record: Record, name: str, tree: Path) -> dict[str, Any]:
    if "baseline" in record["config"]:
        return {"baseline": record["config"]["baseline"], "seed": record["seed"]}
    if "encoder" in record["config"]:
        return {"encoder": {**record["config"]["encoder"], **record["notes"]["encoder"]}, "seed": record["seed"]}
    science = read_object(tree / run_dir(name) / "config.json")
    own = {"dataset": science["dataset"], "method": science["method_name"], "seed": science["seed"]}
    return {"id": name, "science": science_hash(science), **own}


def _efficiency(record: Record) -> dict[str, Any]:
    # a CPU run on a machine with a GPU leaves torch's deterministic mode off
    environment, notes = record["environment"], record["notes"]
    cuda = environment.get("accelerator") and environment.get("deterministic")
    return {
        "device": "auto" if cuda else "cpu",
        "compile": bool(notes.get("compiled")),
        "threads": environment.get("threads") or 1,
        "checkpoint_every": 50,
        "log_every": 10,
        "embed_batch": notes.get("batch") or 512,
    }
