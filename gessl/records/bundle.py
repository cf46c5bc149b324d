"""A bundle: a record that stands for several, which one job makes, each with a record of its own.

It has no outputs. Its inputs are files of the records that it stands for, so it changes when one of them does, and with
nothing else. A workflow that follows files follows this one in place of all of them.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gessl.layout import RESULTS
from gessl.records.step import Step

BUNDLE = "bundle"


def bundle(folder: Path, files: Iterable[Path], config: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Write the record of the bundle in `folder`.

    Args:
        folder: below `results/`.
        files: one output of each record that it stands for.
        config: what was asked for.
        notes: of the job.

    Raises:
        UserError: a file is missing, or altered since it was made.
    """
    with Step(BUNDLE, folder.relative_to(RESULTS).as_posix(), folder, inputs=files, config=dict(config)) as step:
        step.notes |= notes
