"""What an audit looks at: all that lies in a project, or what some reports are made of."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gessl.audit.contents import files_below
from gessl.audit.ledger import Ledger, is_staged
from gessl.errors import UserError
from gessl.layout import RAW, RECORD, RESULTS, report_dir, step_folder
from gessl.records.staging import STAGING


class Scope(NamedTuple):
    """The files that an audit looks at, by their paths from the project's root.

    Attributes:
        ledger: the records among `present`.
        present: the results.
        raw: raw data and their pins.
        note: what lies in the results and is not looked at; empty for nothing.
    """

    ledger: Ledger
    present: list[str]
    raw: list[str]
    note: str = ""

    @classmethod
    def all(cls) -> "Scope":
        """The whole project in the working directory.

        Raises:
            UserError: it has no results.
        """
        present = files_below(RESULTS)
        if not present:
            raise UserError(f"{RESULTS}: nothing in it to audit; run the pipeline first")
        raw = {*files_below(RAW), *map(str, RAW.glob("[!.]*.dvc"))} if RAW.is_dir() else set()
        return cls(Ledger(RESULTS, present), present, sorted(raw))

    def of_grids(self, grids: Sequence[str]) -> "Scope":
        """What the reports of `grids` are made of, with the raw data and the pins that it leads to.

        A folder of results is in it whole, so that what was slipped into one is seen.

        Raises:
            UserError: a grid has no report.
        """
        for grid in grids:
            if not any(_folder(path) == str(report_dir(grid)) for path in self.present):
                raise UserError(f"{report_dir(grid)}: no report to audit; run the workflow first")
        folders, data = _reached(self.ledger, [str(report_dir(grid)) for grid in grids])
        raw = [path for path in self.raw if _folder(path, RAW).removesuffix(".dvc") in data]
        bundles = {f"{folder.rpartition('/')[0]}/{RECORD}" for folder in folders}  # which stand for what is reached
        present = [path for path in self.present if _folder(path) in folders or path in bundles]
        return Scope(self.ledger.only(present), present, raw, _left(set(self.present) - bundles, folders))


def _folder(path: str, top: Path = RESULTS) -> str:
    """The folder in which a step wrote `path`, `results/<kind>/…`; of raw data, `data/raw/<name>`; else empty."""
    if not path.startswith(f"{top}/"):
        return ""
    return step_folder(path) if top == RESULTS else "/".join(path.split("/")[:3])


def _reached(ledger: Ledger, start: Iterable[str]) -> tuple[set[str], set[str]]:
    """The folders of results, and those of raw data, that the inputs of the records in `start` lead to."""
    inputs: dict[str, set[str]] = {}
    for held in ledger.held:
        paths = {entry["path"] for entry in held.record["inputs"]}
        inputs.setdefault(_folder(str(held.folder)), set()).update(paths)
    folders, data, waiting = set[str](), set[str](), list(start)
    while waiting:
        folder = waiting.pop()
        if folder and folder not in folders:
            folders.add(folder)
            data |= {_folder(path, RAW).removesuffix(".dvc") for path in inputs.get(folder, ())}
            waiting += map(_folder, inputs.get(folder, ()))
    return folders, data


def _left(present: Iterable[str], folders: set[str]) -> str:
    others = {_folder(path): is_staged(path) for path in sorted(present, key=is_staged) if _folder(path) not in folders}
    if not others:
        return ""
    halves = sum(others.values())
    half = f" ({halves} of them half made: {STAGING})" if halves else ""
    return f"{len(others)} other results{half} were not looked at; `gessl audit` looks at everything"
