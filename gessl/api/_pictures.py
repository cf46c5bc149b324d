"""Pictures in a folder as images of one size, read when they are asked for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gessl.api._arrays import require_whole
from gessl.data.own.folder import read_folder
from gessl.data.own.found import Found
from gessl.data.pictures import BadPictureError, decode, fitted
from gessl.data.stores import centre
from gessl.errors import UserError
from gessl.files import reason
from gessl.nets.encoder import Encoder
from gessl.protocols.embed import MARGIN

GREY_OR_COLOUR = (1, 3)


class Pictures:
    """Pictures as an encoder takes them, `shape` (n, C, H, W): resized to cover the size, and cut around the centre.

    Args:
        found: the pictures.
        channels: 1 (grey) or 3 (RGB).
        size: height and width in pixels.
        cropped: whether to cover a little more, as of `gessl.protocols.embed.fitted`.
    """

    def __init__(self, found: Sequence[Found], channels: int, size: tuple[int, int], *, cropped: bool) -> None:
        self.shape = len(found), channels, *size
        self.names = [picture.name for picture in found]
        self._found = found
        height, width = size
        self._inside = (round(height * MARGIN), round(width * MARGIN)) if cropped else size

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Those at `positions` [n], uint8 [n, C, H, W].

        Raises:
            UserError: one cannot be read as a picture.
        """
        images = np.empty((len(positions), *self.shape[1:]), np.uint8)
        for place, position in enumerate(positions.tolist()):
            picture = self._found[position]
            try:
                pixels = fitted(decode(picture.data()).image, self._inside, self.shape[1])
            except (BadPictureError, OSError) as error:
                why = f"cannot be read ({reason(error)})" if isinstance(error, OSError) else error
                raise UserError(f"{picture.place}: {why}; repair it, or take it out of the folder") from None
            images[place] = centre(pixels, self.shape[2:])
        return images


def pictures_in(folder: Path, encoder: object, size: int | None) -> Pictures:
    """The pictures below a folder, sorted by name, as the encoder takes them.

    Args:
        folder: where to look; folders in it are of no account.
        encoder: a run's knows its size and channels; for others pictures are in colour.
        size: side of the pictures in pixels, for others.

    Raises:
        UserError: no folder, no picture, a name that cannot be shown, no size, or a wrong one.
    """
    if size is not None:
        require_whole("size", size, 1)
    trove = read_folder(folder, labelled=False)
    for name, why in trove.bad.items():
        raise UserError(f"{folder}: {name}: {why}")
    if not isinstance(encoder, Encoder):
        if size is None:
            raise UserError(f"{folder}: pictures of any size; give size=, the side in pixels that your encoder takes")
        return Pictures(trove.pictures, 3, (size, size), cropped=False)
    if size is not None and (size, size) != encoder.size:
        raise UserError(f"size: {size}, but the run's encoder takes {encoder.size[0]}x{encoder.size[1]}; leave it out")
    channels = encoder.mean.numel()
    if channels not in GREY_OR_COLOUR:
        raise UserError(f"{folder}: the run's encoder takes {channels} channels, which pictures do not have")
    return Pictures(trove.pictures, channels, encoder.size, cropped=encoder.cropped)
