"""CIFAR-100, "python version" (`gessl.data.readers._cifar`). https://www.cs.toronto.edu/~kriz/cifar.html"""

from pathlib import Path

from gessl.data.readers._cifar import Layout, read_batches
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset

LAYOUT = Layout(
    folder="cifar-100-python",
    train=("train",),
    test="test",
    meta="meta",
    names="fine_label_names",
    labels="fine_labels",
)


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open `cifar-100-python.tar.gz` with its fine labels; the parts are `train` and `test`.

    Raises:
        UserError: damaged, another format, or a pickle that wants more than arrays.
    """
    return read_batches(entry, folder, LAYOUT)
