"""CIFAR-10, "python version" (`gessl.data.readers._cifar`). https://www.cs.toronto.edu/~kriz/cifar.html"""

from pathlib import Path

from gessl.data.readers._cifar import Layout, read_batches
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset

LAYOUT = Layout(
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    names="label_names",
    labels="labels",
)


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open `cifar-10-python.tar.gz`; the parts are `train` and `test`.

    Raises:
        UserError: damaged, another format, or a pickle that wants more than arrays.
    """
    return read_batches(entry, folder, LAYOUT)
