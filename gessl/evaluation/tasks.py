"""Read what `gessl tasks` drew (docs/formats.md)."""

from pathlib import Path

from gessl.advice import redo
from gessl.errors import UserError
from gessl.layout import RECORD, file_stem, tasks_dir
from gessl.npz import DAMAGE, load_npz
from gessl.protocols.contract import Arrays

TASKS, CARD = "tasks.npz", "card.json"


def tasks_file(dataset: str, seed: int, protocol: str) -> Path:
    """Where the tasks of a protocol lie."""
    return tasks_dir(dataset, seed) / file_stem(protocol) / TASKS


def load_tasks(dataset: str, seed: int, protocol: str) -> Arrays:
    """The arrays that a protocol drew, all of whole numbers.

    Raises:
        UserError: the tasks are not drawn, or the file is damaged.
    """
    path = tasks_file(dataset, seed, protocol)
    if not (path.parent / RECORD).is_file():  # the record is written last: without it the folder is half-made
        raise UserError(f"{path.parent}: tasks not drawn; run `gessl tasks {dataset}` with seed {seed}")
    try:
        arrays = load_npz(path)
        odd = [name for name, array in arrays.items() if array.dtype.kind not in "iu" or not array.ndim]
        if odd:
            raise ValueError(f"{odd[0]} holds no whole numbers")
        return arrays
    except DAMAGE as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> UserError:
    """The error for a task file that is not what was drawn."""
    return UserError(f"{path}: cannot be read ({error}); {redo(path.parent, 'draw the tasks again')}")
