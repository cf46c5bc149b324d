"""How pictures look, in 64 bits: near duplicates differ in few of them, whatever their size, format and compression."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 9, 8
WITHIN = 3
"""Most bits in which the looks of near duplicates differ, as in Manku, Jain and Das Sarma (WWW 2007), section 3."""
BLOCKS = [np.uint64(0x1111111111111111 << start) for start in range(WITHIN + 1)]
"""Every fourth bit, from the first four on: of two looks within `WITHIN` bits, one block at least is the same. They are
spread over the picture, since pictures with an empty border would share a block of neighbours."""
AT_ONCE = 1 << 22  # pairs that are compared at once


def look_of(picture: Image.Image) -> int:
    """The difference hash of a picture: whether each pixel of a thumbnail is lighter than the one to its left.

    As `imagehash.dhash` has it (https://github.com/JohannesBuchner/imagehash, after N. Krawetz, "Kind of Like That",
    2013): grey (ITU-R 601), 9 x 8 pixels (Lanczos, antialiased), the bits row by row, the first one the highest.
    It tells photographs apart. Small drawings on an empty ground often share one, and flat pictures all have 0.
    """
    pixels = np.asarray(picture.convert("L").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))
    return int.from_bytes(np.packbits(pixels[:, 1:] > pixels[:, :-1]).tobytes())


def looks_of(images: NDArray[np.uint8]) -> list[int]:
    """That of each of the images `[n, C, H, W]`, C = 1 or 3."""
    rows = images.transpose(0, 2, 3, 1)
    plain = rows[..., 0] if images.shape[1] == 1 else rows
    return [look_of(Image.fromarray(np.ascontiguousarray(image))) for image in plain]


def nearest(looks: NDArray[np.uint64], others: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each look the nearest of others, if one is within `WITHIN` bits; exact.

    Not every pair is compared, but those that agree in one of four blocks of 16 bits (multi-index hashing: Norouzi,
    Punjani and Fleet, CVPR 2012, section 2).

    Args:
        looks: `[n]`.
        others: `[m]`.

    Returns:
        its position among the others, `[n]`, the first of equally near ones, or -1; and in how many bits it differs,
        `[n]`, or `WITHIN + 1`.
    """
    distinct, back = np.unique(looks, return_inverse=True)
    known, first = np.unique(others, return_index=True)
    best = np.full(len(distinct), (WITHIN + 1) << 48, np.int64)  # bits, then position: the least is the nearest
    for block in BLOCKS:
        order = np.argsort(known & block, kind="stable")
        keys, wanted = known[order] & block, distinct & block
        start, end = np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")
        for low, high in _blocks(end - start):
            counts = (end - start)[low:high]
            asked = np.repeat(np.arange(low, high), counts)
            within = np.arange(len(asked)) - np.repeat(np.cumsum(counts) - counts, counts)
            found = order[np.repeat(start[low:high], counts) + within]
            bits = np.bitwise_count(distinct[asked] ^ known[found]).astype(np.int64)
            np.minimum.at(best, asked, (bits << 48) + first[found])
    bits, place = best >> 48, best & ((1 << 48) - 1)
    place[bits > WITHIN] = -1
    return place[back], np.minimum(bits, WITHIN + 1)[back]


def _blocks(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges of at most `AT_ONCE` pairs each, or of one look that has more."""
    ends = np.cumsum(counts)
    ranges, low = list[tuple[int, int]](), 0
    while low < len(counts):
        done = int(ends[low - 1]) if low else 0
        high = max(low + 1, int(np.searchsorted(ends, done + AT_ONCE, "right")))
        ranges.append((low, high))
        low = high
    return ranges
