"""Characters drawn from font files: one class per character, every image another face, pose, colour and noise.

An image is a function of the fonts' bytes, the registry's settings, its class and its number within the class (and of
the releases of Pillow and FreeType, whose rasteriser the lock pins), so any number of images is drawn in pieces, again
and again the same. Image i of a class has the same pose, colours and noise whatever the faces: two data sets that
differ in their faces alone differ in nothing else.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gessl.data.fields import Glyphs
from gessl.data.readers._raw import Chunk, RawImages
from gessl.data.registry import Dataset
from gessl.errors import UserError
from gessl.rng import numpy_generator

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFont import FreeTypeFont

Floats = NDArray[np.floating]

BATCH = 250  # images drawn at a time
FINE = 2  # characters are drawn on a grid this much finer than the image, then averaged
LARGE = 4  # drawings are made this much larger, then averaged: fonts round small characters to whole pixels
EM = 256  # pixels of the em at which a character is measured
INKS = 6  # colours drawn for a character, of which the one with most contrast is taken
POSE = 10  # uniform draws of an image besides its colours
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
NONCHARACTER = "\uffff"  # no face has it, so it shows the face's sign for a missing character


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the fonts; the one part is `all`, with the images class by class.

    Raises:
        UserError: a file is no font, or lacks one of the characters.
    """
    settings = entry.glyphs
    assert settings is not None, "the registry requires it of this reader"
    fonts = tuple(_font(folder / file.name, settings.characters) for file in entry.files)
    pen = _Pen(settings, entry.size[0], fonts)
    per_class = entry.parts["all"] // entry.classes

    def chunks() -> Iterator[Chunk]:
        for label in range(entry.classes):
            for start in range(0, per_class, BATCH):
                numbers = range(start, min(start + BATCH, per_class))
                yield Chunk("all", pen.images(label, numbers), np.full(len(numbers), label, dtype=np.int64))
            pen.drawing.cache_clear()  # of this class; the next has others

    return RawImages(tuple(f"U+{ord(character):04X}" for character in settings.characters), chunks)


def _font(path: Path, characters: str) -> "FreeTypeFont":
    from PIL import ImageFont

    try:  # the basic layout needs no library but FreeType
        font = ImageFont.truetype(path, EM, layout_engine=ImageFont.Layout.BASIC)
        small = font.font_variant(size=16)
        missing = _ink(small, NONCHARACTER).tobytes()
        for character in characters:
            if _ink(small, character).tobytes() in (missing, b""):
                raise UserError(f"{path}: has no character U+{ord(character):04X}; take it out of the registry's entry")
    except OSError as error:
        raise UserError(f"{path}: not a font ({error}); fetch it again") from None
    return font


def _ink(font: "FreeTypeFont", character: str, stroke: int = 0) -> "Image.Image":
    """The character cut out along its ink; an image without pixels if it has none."""
    from PIL import Image, ImageDraw

    left, top, right, bottom = (round(edge) for edge in font.getbbox(character, stroke_width=stroke))
    sheet = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(sheet).text((-left, -top), character, fill=255, font=font, stroke_width=stroke)
    return sheet.crop(sheet.getbbox() or (0, 0, 0, 0))


@dataclass(frozen=True)
class _Draws:
    """What B images are made of.

    Attributes:
        face, stroke: int `[B]`: which face, and by how many pixels of the fine grid its outline is thickened.
        inverse: `[B, 6]`: the affine map from places in the image's fine grid to places in the drawing, by rows.
        paper: `[B, 2, 3]`: colours between which the background fades.
        ink: `[B, 3]`: the character's colour.
        tilt: `[B]`: direction of the fade.
        noise: float32 `[B, 3, side, side]`.
    """

    face: NDArray[np.int64]
    stroke: NDArray[np.int64]
    inverse: Floats
    paper: Floats
    ink: Floats
    tilt: Floats
    noise: NDArray[np.float32]


class _Pen:
    """Draws the images of a data set, `side` pixels wide and high."""

    def __init__(self, settings: Glyphs, side: int, fonts: "tuple[FreeTypeFont, ...]") -> None:
        self._settings, self._side, self._fonts = settings, side, fonts
        self._longest = round(FINE * side * settings.scale[1])  # side of a character in its drawing: never enlarged
        self._strokes = 1 + round(self._longest * settings.stroke)
        self._canvas = self._longest + 2 * self._strokes
        self.drawing = lru_cache(maxsize=None)(self._drawing)

    def images(self, label: int, numbers: range) -> NDArray[np.uint8]:
        """Images `numbers` of class `label`, `[B, 3, side, side]`."""
        from PIL.Image import Resampling, Transform

        draws = self._draw(label, numbers)
        masks = np.empty((len(numbers), self._side, self._side), np.uint8)
        fine = (FINE * self._side, FINE * self._side)
        for row, (face, stroke, inverse) in enumerate(
            zip(draws.face.tolist(), draws.stroke.tolist(), draws.inverse.tolist(), strict=True)
        ):
            drawing = self.drawing(label, face, stroke)
            placed = drawing.transform(fine, Transform.AFFINE, inverse, Resampling.BILINEAR)
            masks[row] = np.asarray(placed.reduce(FINE))
        return _paint(masks, draws)

    def _drawing(self, label: int, face: int, stroke: int) -> "Image.Image":
        """The character of a class upright in the middle of a canvas, its longer side always as long."""
        from PIL import Image

        character, font = self._settings.characters[label], self._fonts[face]
        fitted = font.font_variant(size=EM * LARGE * self._longest / max(_ink(font, character).size))
        ink = _ink(fitted, character, LARGE * stroke)
        canvas = Image.new("L", (LARGE * self._canvas, LARGE * self._canvas))
        canvas.paste(ink, ((canvas.width - ink.width) // 2, (canvas.height - ink.height) // 2))
        return canvas.reduce(LARGE)

    def _draw(self, label: int, numbers: range) -> _Draws:
        uniform = np.empty((len(numbers), POSE + 3 * (2 + INKS)))
        noise = np.empty((len(numbers), 3, self._side, self._side), np.float32)
        for row, number in enumerate(numbers):
            rng = numpy_generator(self._settings.seed, "glyphs", label, number)
            uniform[row] = rng.random(uniform.shape[1])
            rng.standard_normal(dtype=np.float32, out=noise[row])
        face, stroke, *pose, tilt, level = uniform[:, :POSE].T
        noise *= (self._settings.noise * level)[:, None, None, None].astype(np.float32)
        first, second, *inks = self._colours(np.moveaxis(uniform[:, POSE:].reshape(len(numbers), -1, 3), 1, 0))
        paper = np.stack([first, first + self._settings.fade * (second - first)], 1)
        return _Draws(
            face=(face * len(self._fonts)).astype(np.int64),
            stroke=(stroke * self._strokes).astype(np.int64),
            inverse=self._inverse(*pose),
            paper=paper,
            ink=_contrasting(np.stack(inks, 1), paper.mean(1)),
            tilt=2 * np.pi * tilt,
            noise=noise,
        )

    def _colours(self, uniform: Floats) -> Floats:
        """From uniform draws `[2 + INKS, B, 3]` to as many colours: two of paper, the rest of ink."""
        if self._settings.colours is None:
            return uniform
        paper, ink = self._settings.colours
        middle = np.array([paper, paper, *[ink] * INKS])[:, None]
        return np.clip(middle + self._settings.jitter * (2 * uniform - 1), 0, 1)

    def _inverse(self, turn: Floats, shear: Floats, scale: Floats, stretch: Floats, x: Floats, y: Floats) -> Floats:
        """From uniform draws `[B]` to the inverse of: scale, shear, turn about the middle, shift."""
        settings, centre, fine = self._settings, self._canvas / 2, FINE * self._side
        angle, shear = np.radians(settings.rotation) * (2 * turn - 1), settings.shear * (2 * shear - 1)
        low, high = settings.scale
        factor, ratio = fine * (low + (high - low) * scale) / self._longest, settings.stretch ** (stretch - 0.5)
        wide, tall = factor * ratio, factor / ratio
        sine, cosine = np.sin(angle), np.cos(angle)
        a, b = (cosine + shear * sine) / wide, (sine - shear * cosine) / wide
        d, e = -sine / tall, cosine / tall
        x, y = (fine * (0.5 + settings.shift * (2 * draw - 1)) for draw in (x, y))
        return np.stack([a, b, centre - a * x - b * y, d, e, centre - d * x - e * y], 1)


def _contrasting(inks: Floats, paper: Floats) -> Floats:
    """Of each image's colours `[B, INKS, 3]` the one whose lightness differs most from its paper's `[B, 3]`."""
    contrast = np.abs((inks - paper[:, None]) @ LUMA)
    return np.take_along_axis(inks, contrast.argmax(1)[:, None, None], 1)[:, 0]


def _paint(masks: NDArray[np.uint8], draws: _Draws) -> NDArray[np.uint8]:
    """Ink through the masks `[B, side, side]` on fading paper, with noise on both."""
    cover = masks.astype(np.float32)[:, None] / 255
    side = masks.shape[1]
    place = ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)
    across, down = (part(draws.tilt).astype(np.float32)[:, None, None] for part in (np.cos, np.sin))
    fade = np.clip(0.5 + across * place + down * place[:, None], 0, 1)[:, None]
    start, end = draws.paper.astype(np.float32)[..., None, None].swapaxes(0, 1)
    images = start + (end - start) * fade
    images += (draws.ink.astype(np.float32)[..., None, None] - images) * cover
    images += draws.noise
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
