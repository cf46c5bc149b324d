"""Whether the installed packages are as they were installed: their files against the hashes of their own `RECORD`s.

A wheel brings these hashes, and installing keeps them. Whoever edits a file can edit the list as well; only an
environment that is built from the lock, whose hashes are those of the wheels, is proof against that.
"""

import base64
import contextlib
import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from typing import NamedTuple, Self

from gessl.audit.contents import read_contents
from gessl.audit.ledger import Finding
from gessl.layout import LOCK
from gessl.records.provenance import PACKAGE

CODE = re.compile(r"\.(py|pyc|pth|pyd|dylib|so(\.[\d.]+)?)$")
OF_VENV = {"_virtualenv.py", "_virtualenv.pth"}  # of the tool that made the environment
SHOWN = 3  # most faults in one line


class Installed(NamedTuple):
    """Outcome: faults by path, the distributions that could not be checked, and how many files were."""

    faults: dict[str, str]
    unchecked: tuple[str, ...]
    files: int

    @classmethod
    def check(cls, places: Sequence[str]) -> Self:
        """Compare the code of all installed packages, but for this one, with their `RECORD`s.

        Args:
            places: the folders of installed packages.
        """
        distributions = list(metadata.distributions(path=list(places)))
        bare = sorted(str(one.metadata["Name"]) for one in distributions if _list(one) is None)
        wanted: dict[str, set[str]] = {}
        own: set[str] = set()  # where this package lies, which a project that was moved may have had to change
        for one in distributions:
            if one.metadata["Name"] == PACKAGE.name:
                own.update(path for path, _ in _recorded(one))
                continue
            for path, sha256 in _recorded(one):
                wanted.setdefault(path, set()).add(sha256)  # what two of them bring may be that of either
        contents = read_contents(wanted)
        faults = dict.fromkeys(wanted.keys() - contents.keys(), "not there")
        for path, content in contents.items():
            if content.sha256 not in wanted[path]:
                faults[path] = content.error or "other bytes"
        if not bare:  # else these may be theirs
            known = wanted.keys() | own
            faults |= {path: "no distribution brought it" for path in _code_below(places) if path not in known}
        return cls(dict(sorted(faults.items())), tuple(bare), len(wanted))

    def findings(self) -> Iterator[Finding]:
        """The faults as an audit tells them."""
        for path, fault in self.faults.items():
            what = f"not as it was installed ({fault})"
            yield Finding("altered", path, what, f"make the environment anew from {LOCK}")

    def summary(self) -> str:
        """In a few words."""
        if self.faults:
            shown = ", ".join(f"{path} ({fault})" for path, fault in [*self.faults.items()][:SHOWN])
            more = f" and {len(self.faults) - SHOWN} more" if len(self.faults) > SHOWN else ""
            return f"installed files are not as they were installed: {shown}{more}"
        text = f"{self.files} installed files are as they were installed"
        bare = f"; nothing tells of those of {', '.join(self.unchecked[:SHOWN])}" if self.unchecked else ""
        more = f" and {len(self.unchecked) - SHOWN} more" if len(self.unchecked) > SHOWN else ""
        return f"{text}{bare}{more}"


def _list(one: metadata.Distribution) -> str | None:
    read = one.read_text  # in UTF-8, always
    return read("RECORD")


def _recorded(one: metadata.Distribution) -> Iterator[tuple[str, str]]:
    """Absolute path and hex SHA-256 (empty where there is none) of each file of code that a distribution brought."""
    for row in csv.reader((_list(one) or "").splitlines()):
        if len(row) == 3 and CODE.search(row[0]) and "__pycache__" not in row[0]:
            kind, _, text = row[1].partition("=")
            with contextlib.suppress(ValueError):
                sha256 = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex() if kind == "sha256" else ""
                yield os.path.normpath(os.path.join(str(one.locate_file("")), row[0])), sha256


def _code_below(places: Iterable[str]) -> Iterator[str]:
    for place in places:
        for folder, folders, files in os.walk(place):
            folders[:] = [name for name in folders if name != "__pycache__"]
            yield from (os.path.join(folder, name) for name in files if CODE.search(name) and name not in OF_VENV)
