"""The order of the training images: its bits, its epochs, its mini-batches, and what is refused."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gessl.data.arrays import positions_of
from gessl.data.order import Order
from gessl.errors import UserError
from gessl.layout import data_dir

TRAIN = np.arange(2, 300, 3)  # 100 positions


def epoch(seed: int, number: int) -> list[int]:
    """The whole epoch as one mini-batch."""
    return Order(TRAIN, seed, 100).positions(number).tolist()


def test_epochs_have_the_bits_that_runs_were_trained_with() -> None:
    """The hash is of what version 1 wrote to a file: every trained weight depends on it."""
    rows = np.array([epoch(5, number) for number in range(4)])
    assert rows[:, :3].tolist() == [[116, 11, 236], [179, 137, 254], [116, 233, 197], [167, 263, 230]]
    digest = hashlib.sha256(rows.astype(np.uint32).tobytes()).hexdigest()
    assert digest == "498332435a3455a4755857743cac62c4934c45d1f2c90957be95236ef54c5ffb"


@pytest.mark.parametrize("seed", [0, 2**53 - 1])
def test_an_epoch_is_a_permutation_made_from_seed_and_number_alone(seed: int) -> None:
    for number in (0, 1, 10**6):
        key = hashlib.sha256(f"({seed}, 'order', {number})".encode()).digest()
        formula = np.random.default_rng(int.from_bytes(key[:8], "little") >> 1).permutation(TRAIN)
        assert epoch(seed, number) == formula.tolist()
        assert sorted(formula) == TRAIN.tolist()


@pytest.mark.parametrize("batch", [1, 8, 49, 50, 51, 100])
def test_batches_cut_each_epoch_and_leave_out_the_rest(batch: int) -> None:
    order = Order(TRAIN, 3, batch)
    starts = range(0, 100 - batch + 1, batch)
    expected = [epoch(3, number)[start : start + batch] for number in range(3) for start in starts]
    assert order.batches == len(starts)
    tasks = range(len(expected))
    for task in (*tasks, *reversed(tasks)):  # in any order, though the ascending one is the cheap one
        assert order.positions(task).tolist() == expected[task]


def test_an_epoch_is_drawn_once_though_the_tasks_of_a_step_straddle_two(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    class Counted(np.random.Generator):
        def permutation(self, x: object, axis: int = 0) -> object:  # type: ignore[override]
            drawn.append(len(x))  # type: ignore[arg-type]
            return super().permutation(x, axis)  # type: ignore[call-overload]

    monkeypatch.setattr("gessl.data.order.numpy_generator", lambda *key: Counted(np.random.PCG64(0)))
    order, batches, per_step = Order(TRAIN, 0, 30), 3, 4
    for step in range(6):
        for task in range(per_step):
            order.positions(step * per_step + task)
    assert drawn == [100] * (6 * per_step // batches)


def test_orders_are_uniform() -> None:
    """Every image is equally often in every place, and neighbours of one epoch are not neighbours in the next."""
    order = Order(np.arange(36), 3, 36)
    rows = np.stack([order.positions(number) for number in range(3000)])
    counts = np.stack([np.bincount(rows[:, place], minlength=36) for place in range(36)])
    # Rows and columns of the table are tied to sums of 3000: (36 - 1)^2 degrees of freedom.
    assert stats.chi2.sf(((counts - 3000 / 36) ** 2 / (3000 / 36)).sum(), 35**2) > 1e-3
    places = rows.argsort(1)[:, 0]  # of image 0
    assert abs(stats.spearmanr(places[:-1], places[1:]).statistic) < 4.5 / np.sqrt(3000)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(UserError, match=r"^train.batch: 101 is more than the 100 training images; give fewer$"):
        Order(TRAIN, 0, 101)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of five images, prepared; it is to be written anew."""
    monkeypatch.chdir(tmp_path)
    data_dir("toy").mkdir(parents=True)
    (data_dir("toy") / "record.json").write_text("{}", encoding="utf-8")
    return data_dir("toy") / "index.csv"


def test_training_images_are_those_of_the_split(index: Path) -> None:
    rows = ['0,"a, train",val', "1,b,train", "2,train,test", "3,,train", "4,x,"]
    index.write_text("\n".join(["id,class,split", *rows]), encoding="utf-8")
    assert positions_of("toy", "train").tolist() == [1, 3]


def test_data_without_training_images_are_refused(index: Path) -> None:
    index.write_text("id,split\n0,val\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"^results/data/toy/index.csv: no image is in split 'train'; fix "):
        positions_of("toy", "train")
    (index.parent / "record.json").unlink()
    with pytest.raises(UserError, match=r"^results/data/toy: not prepared; run `gessl prepare toy`$"):
        positions_of("toy", "train")
