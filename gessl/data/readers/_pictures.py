"""What readers of pictures share: they yield the bytes of files, and get chunks of pixels of one size."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gessl.advice import move_away
from gessl.data.pictures import BadPictureError, decode, fitted
from gessl.data.readers._raw import Chunk, Picture, RawImages
from gessl.data.registry import Dataset
from gessl.data.threads import cores
from gessl.errors import UserError

AT_ONCE = 256  # pictures that are decoded at once


def raw_pictures(
    entry: Dataset, path: Path, classes: tuple[str, ...], pictures: Callable[[], Iterator[Picture]]
) -> RawImages:
    """What a reader of pictures returns: their chunks are fitted into the entry's size and channels.

    Args:
        entry: the data set.
        path: the archive or folder that holds them, for messages.
        classes: as of `RawImages`.
        pictures: reads all of them; may be called again and then yields the same.
    """

    def pixels(picture: Picture) -> NDArray[np.uint8]:
        try:
            return fitted(decode(picture.contents()).image, entry.size, entry.channels)
        except BadPictureError as error:
            fix = move_away(path, "get it again")
            raise UserError(f"{path}: {picture.name}: {error}; {fix}") from None

    def chunks() -> Iterator[Chunk]:
        with ThreadPoolExecutor(cores()) as pool:  # Pillow decodes without the interpreter's lock
            waiting = pictures()
            while batch := list(islice(waiting, AT_ONCE)):
                # decoded together, whatever their part, and then cut where the part changes
                images = pool.map(pixels, batch)
                for part, members in groupby(batch, lambda picture: picture.part):
                    same = list(members)
                    yield Chunk(
                        part,
                        np.stack(list(islice(images, len(same)))),
                        np.array([picture.label for picture in same], np.int64),
                        tuple(picture.name for picture in same),
                        tuple(picture.group for picture in same),
                    )

    return RawImages(classes, chunks, pictures)
