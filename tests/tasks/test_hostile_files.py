"""Task files and prepared data whose hashes are right, but which hold something else: one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gessl.data.arrays import open_images, read_index
from gessl.errors import UserError
from gessl.layout import RECORD, data_dir, tasks_dir
from gessl.tasks.read import load_episodes, load_label_subsets, load_sigma_suite


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (data_dir("x"), tasks_dir("x", 0)):
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
@pytest.mark.parametrize(
    ("name", "load", "arrays"),
    [
        ("episodes.npz", load_episodes, {"5w1s/classes": WHOLE}),
        ("episodes.npz", load_episodes, dict.fromkeys(("a/classes", "a/support", "a/query"), WHOLE)),
        ("episodes.npz", load_episodes, {"a/classes": np.array("x")}),
        ("sigma.npz", load_sigma_suite, {"other": WHOLE}),
        ("sigma.npz", load_sigma_suite, dict.fromkeys(("classes", "train", "val", "test"), WHOLE)),
        ("labels.npz", load_label_subsets, {"1pct": np.zeros(3)}),
    ],
)
def test_task_files_of_another_content_are_one_line(
    name: str, load: Callable[[str, int], object], arrays: dict[str, np.ndarray]
) -> None:
    np.savez(tasks_dir("x", 0) / name, **arrays)
    with pytest.raises(UserError, match=f"{name}: cannot be read"):
        load("x", 0)


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("text", [b"", b"id\n1\n", b"\xff", b"a,a\n1\n", b"id,label\n1,x\n", b"label\n" + b"9" * 400])
def test_an_index_that_is_none_is_one_line(text: bytes) -> None:
    (data_dir("x") / "index.csv").write_bytes(text)
    with pytest.raises(UserError, match=r"index\.csv: cannot be read"):
        read_index("x")
