"""The replay: makes a step again from its record and compares it, bit for bit, with what is there."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gessl.audit.compare import Gap, Pairs, clocks_of, compare_files, differing_leaves, flatten, pairs_json, plain
from gessl.audit.find import record_folder
from gessl.audit.rebuild import rebuilt
from gessl.errors import UserError
from gessl.files import sha256_file
from gessl.layout import RECORD
from gessl.records.record import read_record

SHOWN = 10  # differing parts of a file, and outputs with the same bits, that people see
Status = Literal["same", "same but for clocks", "differs", "missing", "altered", "not rebuilt", "not recorded"]
GOOD: tuple[Status, ...] = ("same", "same but for clocks")


@dataclass(frozen=True)
class Compared:
    """One output: the file here next to the one made again.

    Attributes:
        path: of the output.
        status: "missing": not here; "altered": the file here is not the recorded one, and differs from the one made
            again; "not rebuilt", "not recorded": an output of only one of the two.
        recorded: whether what was made again has the recorded hash.
        gaps: where the file here and the one made again differ.
    """

    path: str
    status: Status
    recorded: bool
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True)
class Replay:
    """Outcome of a replay: what was made again, with what, each output, and how the machine differs (recorded, now)."""

    step: str
    name: str
    record: str
    code: str
    environment: str
    outputs: tuple[Compared, ...]
    machine: Pairs

    @property
    def ok(self) -> bool:
        """Whether every output here has the bits that were made again, measured times aside."""
        return all(output.status in GOOD for output in self.outputs)


def replay(identifier: str, *, here: bool = False) -> Replay:
    """Make a step again, in a scratch project with the recorded code, and compare its outputs with those here.

    Args:
        identifier: see `gessl.audit.find.record_folder`.
        here: take the present environment, even if it is not the recorded one.

    Raises:
        UserError: no such record, or the step cannot be made again (see `gessl.audit.rebuild.rebuilt`).
    """
    folder = record_folder(identifier)
    record = read_record(folder)
    if record is None:
        raise UserError(f"{folder / RECORD}: no longer there; run its step again")
    with rebuilt(folder, record, here=here) as made:
        recorded = {entry["path"]: entry["sha256"] for entry in record["outputs"]}
        new = {entry["path"]: entry["sha256"] for entry in made.record["outputs"]}
        outputs = tuple(
            _compare(path, recorded.get(path), new.get(path), made.tree) for path in sorted({*recorded, *new})
        )
        machine = differing_leaves(dict(flatten(record["environment"])), dict(flatten(made.record["environment"])))
        return Replay(record["step"], record["name"], record["id"], made.code, made.environment, outputs, machine)


def _compare(path: str, recorded: str | None, new: str | None, tree: Path) -> Compared:
    if recorded is None or new is None:
        return Compared(path, "not rebuilt" if new is None else "not recorded", False)
    here = Path(path)
    if not here.is_file():
        return Compared(path, "missing", recorded == new)
    present = sha256_file(here)
    if present == new:
        return Compared(path, "same" if present == recorded else "altered", recorded == new)
    gaps = compare_files(here, tree / path)
    if present != recorded:
        return Compared(path, "altered", recorded == new, gaps)
    return Compared(path, "differs" if gaps else "same but for clocks", False, gaps)


def format_replay(outcome: Replay) -> str:
    """The outcome for people: one line, then what it was made with, then a line per output and per differing part."""
    good = [output for output in outcome.outputs if output.status in GOOD]
    aside = ", measured times aside" if any(output.status == "same but for clocks" for output in good) else ""
    verdict = "passed" if outcome.ok else "FAILED"
    lines = [
        f"replay {verdict}: {outcome.step} {outcome.name} (record {outcome.record[:12]}): {len(good)} of"
        f" {len(outcome.outputs)} outputs have the same bits{aside}",
        f"with {outcome.code}, {outcome.environment}",
    ]
    same = [output for output in outcome.outputs if output.status == "same"]
    if len(same) > SHOWN:
        lines.append(f"same: {len(same)} outputs (--json names them)")
    shown = [output for output in outcome.outputs if output not in same or len(same) <= SHOWN]
    if any(output.gaps for output in shown):
        lines.append("of what differs, first the one here, second the one made again (here -> made again):")
    lines += [line for output in shown for line in _describe(output)]
    lines.append(f"not compared: {RECORD}, which says when and where the outputs were made")
    if outcome.machine:
        lines.append("the machine is another:" if outcome.ok else "the machine is another, which may be the reason:")
        lines += [f"  {key}: recorded {old}, now {new}" for key, (old, new) in outcome.machine.items()]
    elif not outcome.ok:
        lines.append("processor, accelerator, threads and versions are the recorded ones")
    return "\n".join(line if line.isprintable() else ascii(line) for line in lines)


def _describe(output: Compared) -> Iterator[str]:
    meaning = {
        "altered": "the file here is not the recorded one",
        "missing": "not here",
        "same but for clocks": f"not compared: {', '.join(sorted(clocks_of(Path(output.path))))}",
    }.get(output.status)
    if output.status in ("altered", "missing"):
        meaning = f"{meaning}; made again, it has {'the recorded' if output.recorded else 'other'} bits"
    yield f"{output.status}: {output.path}" + (f" ({meaning})" if meaning else "")
    yield from (f"  {gap}" for gap in output.gaps[:SHOWN])
    if len(output.gaps) > SHOWN:
        yield f"  and {len(output.gaps) - SHOWN} more parts"


def replay_json(outcome: Replay) -> dict[str, Any]:
    """The outcome as JSON values."""
    values: dict[str, Any] = plain({"ok": outcome.ok, **asdict(outcome), "machine": pairs_json(outcome.machine)})
    return values
