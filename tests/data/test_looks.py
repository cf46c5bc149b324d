"""Looks against the definition in loops, and the nearest of them against all pairs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gessl.data import looks
from gessl.data.looks import BLOCKS, WITHIN, look_of, looks_of, nearest
from gessl.data.pictures import read_header
from tests.support.photos import encoded, photo


def sinc(x: float) -> float:
    return math.sin(math.pi * x) / (math.pi * x) if x else 1.0


def resampled(line: list[float], size: int) -> list[float]:
    """Lanczos (a = 3), widened by the scale where it shrinks, in float64."""
    scale = len(line) / size
    wide = max(scale, 1.0)
    result = []
    for place in range(size):
        centre = (place + 0.5) * scale
        shares = {}
        for at in range(len(line)):
            x = (at + 0.5 - centre) / wide
            if abs(x) < 3:
                shares[at] = (
                    1.0 if x == 0 else 3 * math.sin(math.pi * x) * math.sin(math.pi * x / 3) / (math.pi * x) ** 2
                )
        result.append(sum(share * line[at] for at, share in shares.items()) / sum(shares.values()))
    return result


def thumbnail(image: NDArray[np.uint8]) -> list[list[float]]:
    """Grey, 9 across and 8 down."""
    grey = [[0.299 * float(r) + 0.587 * float(g) + 0.114 * float(b) for r, g, b in row] for row in image]
    rows = [resampled(row, 9) for row in grey]
    columns = [resampled([row[x] for row in rows], 8) for x in range(9)]
    return [[columns[x][y] for x in range(9)] for y in range(8)]


@pytest.mark.parametrize(("height", "width"), [(8, 9), (8, 8), (23, 40), (61, 30)])
def test_a_look_is_the_difference_hash(height: int, width: int) -> None:
    image = np.asarray(photo(np.random.default_rng(height), height, width))
    found, decided = look_of(Image.fromarray(image)), 0
    for y, row in enumerate(thumbnail(image)):
        for x in range(8):
            rise = row[x + 1] - row[x]
            if abs(rise) > 2:  # Pillow rounds grey, rows and columns to whole numbers
                decided += 1
                assert (found >> (63 - 8 * y - x)) & 1 == (rise > 0)
    assert decided > 32


def test_a_look_is_that_of_imagehash() -> None:
    y, x = np.mgrid[:40, :60]
    image = np.stack([x * y % 256, (3 * x + 5 * y) % 256, (x * x + 7 * y) % 256], -1).astype(np.uint8)
    assert f"{look_of(Image.fromarray(image)):016x}" == "ffffdfbeacf1e3cf", "of imagehash 4.3.2"
    assert looks_of(image.transpose(2, 0, 1)[None]) == [look_of(Image.fromarray(image))]
    assert looks_of(image[None, ..., 0][None]) == [look_of(Image.fromarray(image[..., 0]))]
    assert look_of(Image.new("RGB", (50, 40), "red")) == 0, "flat"


def test_copies_of_a_photograph_look_alike_and_others_do_not() -> None:
    rng, turn = np.random.default_rng(0), Image.Exif()
    turn[274] = 6
    found = []
    for _ in range(20):
        picture = photo(rng, 300, 400)
        smaller, grey = picture.resize((160, 120), Image.Resampling.BILINEAR), ImageOps.grayscale(picture)
        copies = [encoded(picture, "PNG"), encoded(picture, quality=40), encoded(smaller), encoded(grey)]
        copies.append(encoded(picture.transpose(Image.Transpose.ROTATE_90), exif=turn))
        seen = [read_header(data).look for data in copies]
        assert seen[0] == look_of(picture)
        assert max((one ^ seen[0]).bit_count() for one in seen) <= WITHIN
        found.append(seen[0])
    assert min((a ^ b).bit_count() for a in found for b in found if a is not b) > 2 * WITHIN


def test_every_bit_is_in_one_block() -> None:
    assert len(BLOCKS) == WITHIN + 1 and sum(map(int, BLOCKS)) == 2**64 - 1
    assert [int(block).bit_count() for block in BLOCKS] == [16] * 4


def flipped(look: int, bits: list[int]) -> int:
    for bit in bits:
        look ^= 1 << bit
    return look


@st.composite
def crowded(draw: st.DrawFn) -> list[int]:
    """Looks that are near each other, and repeat."""
    base = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
    changes = st.lists(st.integers(0, 63), max_size=6)
    return draw(st.lists(st.builds(flipped, st.sampled_from([0, *base]), changes), max_size=12))


@given(crowded(), crowded(), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_the_nearest_is_that_of_all_pairs(ours: list[int], theirs: list[int], at_once: int) -> None:
    theirs = theirs + [flipped(look, [n % 64]) for n, look in enumerate(ours)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looks, "AT_ONCE", at_once)
        place, bits = nearest(np.array(ours, np.uint64), np.array(theirs, np.uint64))
    for row, look in enumerate(ours):
        apart = [(look ^ other).bit_count() for other in theirs]
        least = min(apart, default=64)
        expected = (theirs.index(theirs[apart.index(least)]), least) if least <= WITHIN else (-1, WITHIN + 1)
        assert (place[row], bits[row]) == expected


def test_nothing_is_near_nothing() -> None:
    some, none = np.array([1, 2], np.uint64), np.array([], np.uint64)
    assert nearest(some, none)[0].tolist() == [-1, -1] and nearest(none, some)[0].tolist() == []
