"""Some classes of ILSVRC 2012 (`gessl.data.readers._imagenet`): a list of WordNet ids says which."""

from collections.abc import Iterator
from pathlib import Path

from gessl.data.readers._imagenet import FILES, read_devkit, train_pictures, val_pictures
from gessl.data.readers._members import LIST, raw_files, text_lines
from gessl.data.readers._pictures import raw_pictures
from gessl.data.readers._raw import Picture, RawImages
from gessl.data.registry import Dataset
from gessl.errors import UserError
from gessl.files import read_bounded


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the three archives and the list; the parts are `train` and `test`, the published validation images.

    Classes are numbered by their sorted WordNet ids, whatever the order of the list.

    Raises:
        UserError: an archive is damaged, or the list names another thing; of pictures it shows while they are read.
    """
    train, val, kit, chosen = raw_files(entry, folder, *FILES, "a list of WordNet ids")
    devkit = read_devkit(kit)
    wnids = tuple(sorted(set(text_lines(read_bounded(chosen, LIST), str(chosen)))))
    strange = sorted(set(wnids) - set(devkit.wnids))
    if strange:
        raise UserError(f"{chosen}: {strange[0]!a} is no class of ILSVRC 2012; get the list again")
    labels = {wnid: label for label, wnid in enumerate(wnids)}

    def pictures() -> Iterator[Picture]:
        yield from train_pictures(train, labels)
        yield from val_pictures(val, devkit, labels)

    return raw_pictures(entry, folder, wnids, pictures)
