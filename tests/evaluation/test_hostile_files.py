"""Task files and prepared data whose hashes are right, but which hold something else: one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gessl.data.arrays import open_images, read_index
from gessl.errors import UserError
from gessl.evaluation.tasks import load_tasks
from gessl.layout import RECORD, data_dir, tasks_dir
from gessl.protocols._episodes import read_episodes
from gessl.protocols._suite import read_suite
from gessl.protocols.contract import Arrays, OddTasksError


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (data_dir("x"), tasks_dir("x", 0) / "a__b"):
        folder.mkdir(parents=True)
        (folder / RECORD).touch()


WHOLE = np.zeros((2, 2), np.int64)
ARRAYS = [
    np.zeros((2, 2, 2, 2)),
    np.zeros(3, np.uint8),
    np.array(["a"]),
    np.zeros((2, 2), complex),
]


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("array", ARRAYS, ids=str)
def test_arrays_of_another_kind_are_one_line(array: np.ndarray) -> None:
    np.save(data_dir("x") / "images.npy", array)
    with pytest.raises(UserError, match="cannot be read"):
        open_images("x")


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("array", [np.array("x"), np.zeros(3), np.int64(1), np.zeros(3, bool)])
def test_tasks_that_are_no_whole_numbers_are_one_line(array: np.ndarray) -> None:
    np.savez(tasks_dir("x", 0) / "a__b/tasks.npz", a=array)
    with pytest.raises(UserError, match=r"a__b/tasks\.npz: cannot be read \(a holds no whole numbers\)"):
        load_tasks("x", 0, "a/b")


@pytest.mark.parametrize(
    ("read", "arrays"),
    [
        (read_episodes, {"5w1s/classes": WHOLE}),
        (read_episodes, dict.fromkeys(("a/classes", "a/support", "a/query"), WHOLE)),
        (read_suite, {"other": WHOLE}),
        (read_suite, dict.fromkeys(("classes", "train", "val", "test"), WHOLE)),
    ],
)
def test_tasks_of_another_shape_are_refused(read: Callable[[Arrays], object], arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(OddTasksError):
        read(arrays)


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("text", [b"", b"id\n1\n", b"\xff", b"a,a\n1\n", b"id,label\n1,x\n", b"label\n" + b"9" * 400])
def test_an_index_that_is_none_is_one_line(text: bytes) -> None:
    (data_dir("x") / "index.csv").write_bytes(text)
    with pytest.raises(UserError, match=r"index\.csv: cannot be read"):
        read_index("x")
