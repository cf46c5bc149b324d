"""Drawn characters: what an image depends on, its geometry and colours against independent references, the registry."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from gessl.data.arrays import open_images, read_card, read_index
from gessl.data.prepare import prepare
from gessl.data.readers import Chunk, open_raw
from gessl.data.registry import Dataset, dataset, dataset_names
from gessl.errors import UserError
from gessl.rng import numpy_generator

Draw = Callable[..., None]
# nothing random but the face and the colours
PLAIN = {
    "scale": [0.6, 0.6], "stretch": 1, "rotation": 0, "shear": 0, "shift": 0, "stroke": 0, "fade": 0, "noise": 0,
}  # fmt: skip
SANS = ("DejaVuSans.ttf",)


def read(name: str) -> np.ndarray:
    """All images by class, `[classes, per_class, 3, side, side]`."""
    entry = dataset(name)
    images = np.concatenate([chunk.images for chunk in open_raw(entry).chunks()])
    return images.reshape(entry.classes, -1, *images.shape[1:])


def masks(images: np.ndarray) -> np.ndarray:
    """The ink's share in each pixel of images `[…, 3, side, side]` of one ink on one paper without noise."""
    flat = images.astype(np.float64).reshape(*images.shape[:-2], -1)
    towards = flat - flat[..., :1]  # the first pixel is paper
    far = np.abs(towards).sum(-2, keepdims=True).argmax(-1, keepdims=True)
    ink = np.take_along_axis(towards, far, -1)
    share = (towards * ink).sum(-2) / (ink * ink).sum(-2)
    return share.reshape(*images.shape[:-3], *images.shape[-2:])


def bundled(face: str) -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts/ttf" / face


def test_images_depend_on_seed_class_and_number_alone(draw_glyphs: Draw) -> None:
    draw_glyphs("many", per_class=260)  # more than a batch
    draw_glyphs("few", per_class=7)
    draw_glyphs("other", per_class=7, glyphs={"seed": 1})
    many, few, other = read("many"), read("few"), read("other")
    assert many.shape == (5, 260, 3, 28, 28)
    assert many.dtype == np.uint8
    assert np.array_equal(many[:, :7], few)
    assert np.array_equal(read("few"), few)
    assert (other != few).mean() > 0.9
    assert len({image.tobytes() for image in many.reshape(-1, 3, 28, 28)}) == 5 * 260


def test_chunks_come_class_by_class_and_are_small(draw_glyphs: Draw) -> None:
    draw_glyphs("mine", per_class=600)
    raw = open_raw(dataset("mine"))
    assert raw.classes == ("U+0041", "U+0047", "U+004B", "U+0436", "U+2211")
    chunks: Iterator[Chunk] = raw.chunks()
    labels = []
    for chunk in chunks:
        assert chunk.part == "all"
        assert len(chunk.images) == len(chunk.labels) <= 300
        labels += chunk.labels.tolist()
    assert labels == [label for label in range(5) for _ in range(600)]


@pytest.mark.parametrize("face", ["DejaVuSans.ttf", "DejaVuSerif-BoldItalic.ttf"])
@pytest.mark.parametrize("side", [28, 64])
def test_an_upright_character_is_pillows(face: str, side: int, draw_glyphs: Draw) -> None:
    """The longer side fills the stated share of the image, and the character stands in the middle."""
    draw_glyphs("mine", faces=(face,), per_class=1, size=[side, side], glyphs=PLAIN)
    font, big = ImageFont.truetype(bundled(face), 1000), 16  # drawn large, then averaged
    for character, ours in zip("AGKж∑", masks(read("mine")[:, 0]), strict=True):
        large = Image.new("L", (2000, 2000))
        ImageDraw.Draw(large).text((300, 300), character, fill=255, font=font)
        ink = large.crop(large.getbbox())
        factor = 0.6 * side * big / max(ink.size)
        ink = ink.resize((round(ink.width * factor), round(ink.height * factor)))
        sheet = Image.new("L", (side * big, side * big))
        sheet.paste(ink, ((sheet.width - ink.width) // 2, (sheet.height - ink.height) // 2))
        expected = np.asarray(sheet.reduce(big), np.float64) / 255
        assert np.corrcoef(ours.ravel(), expected.ravel())[0, 1] > 0.98
        assert abs(ours.sum() / expected.sum() - 1) < 0.03


def moments(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre `[2]` (x, y) and covariance `[2, 2]` of a mask, in shares of the side."""
    side = mask.shape[0]
    places = np.stack(np.meshgrid(*2 * [(np.arange(side) + 0.5) / side])).reshape(2, -1)
    weights = mask.ravel().clip(0) / mask.clip(0).sum()
    centre = places @ weights
    return centre, (places - centre[:, None]) * weights @ (places - centre[:, None]).T


def test_the_pose_is_scale_then_shear_then_turn_then_shift(draw_glyphs: Draw) -> None:
    """Moments of a posed character from those of the upright one, by matrices; draws in their documented order."""
    pose = {"scale": [0.4, 0.6], "stretch": 1.3, "rotation": 40, "shear": 0.4, "shift": 0.1}
    draw_glyphs("plain", faces=SANS, per_class=30, size=[64, 64], glyphs=PLAIN)
    draw_glyphs("posed", faces=SANS, per_class=30, size=[64, 64], glyphs=PLAIN | pose)
    plain, posed = masks(read("plain")), masks(read("posed"))
    for label in range(5):
        for number in range(30):
            draws = numpy_generator(0, "glyphs", label, number).random(8)[2:]
            turn, shear, scale, stretch, x, y = draws
            angle, ratio = math.radians(40 * (2 * turn - 1)), 1.3 ** (stretch - 0.5)
            size = np.diag([ratio, 1 / ratio]) * (0.4 + 0.2 * scale) / 0.6
            slant = np.array([[1, 0.4 * (2 * shear - 1)], [0, 1]])
            rotate = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
            matrix = rotate @ slant @ size
            centre, spread = moments(plain[label, number])
            expected = 0.5 + matrix @ (centre - 0.5) + 0.1 * (2 * np.array([x, y]) - 1)
            found, covariance = moments(posed[label, number])
            np.testing.assert_allclose(found, expected, atol=0.01)
            np.testing.assert_allclose(covariance, matrix @ spread @ matrix.T, atol=0.0015)


def test_no_character_leaves_its_image_when_upright(draw_glyphs: Draw) -> None:
    draw_glyphs("mine", per_class=40, glyphs=PLAIN | {"scale": [1, 1]})
    side = masks(read("mine"))
    inside = np.abs(side[..., 1:-1, 1:-1]).max((2, 3))
    assert inside.min() > 0.9
    extent = [1 + max(np.ptp(np.nonzero(mask > 0.2), axis=1)) for mask in side.reshape(-1, 28, 28)]
    assert min(extent) >= 27


def test_a_stroke_thickens(draw_glyphs: Draw) -> None:
    draw_glyphs("thin", faces=SANS, per_class=60, glyphs=PLAIN)
    draw_glyphs("thick", faces=SANS, per_class=60, glyphs=PLAIN | {"stroke": 0.06})
    growth = masks(read("thick")).sum((2, 3)) / masks(read("thin")).sum((2, 3))
    levels = growth[0].round(1)
    assert growth.min() > 0.99
    assert len(np.unique(levels)) == 3  # a character of 34 fine pixels grows by 0, 1 or 2 of them
    assert levels.max() > 1.3


def test_every_face_is_drawn_as_often(draw_glyphs: Draw) -> None:
    faces = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif-Italic.ttf")
    draw_glyphs("all", faces=faces, per_class=300, glyphs=PLAIN)
    for face in faces:
        draw_glyphs(face.removesuffix(".ttf").lower(), faces=(face,), per_class=300, glyphs=PLAIN)
    every = read("all")
    same = np.stack([(read(face.removesuffix(".ttf").lower()) == every).all((2, 3, 4)) for face in faces])
    assert (same.sum(0) == 1).all()  # each image is that of one face, colours and all
    shares = same.mean((1, 2))
    assert np.abs(shares - 1 / 3).max() < 4.5 * math.sqrt(2 / 9 / 1500)


def test_the_ink_stands_out(draw_glyphs: Draw) -> None:
    draw_glyphs("mine", per_class=200, glyphs=PLAIN)
    luma = np.tensordot(read("mine").reshape(-1, 3, 28 * 28) / 255.0, [0.299, 0.587, 0.114], (1, 0))
    contrast = np.abs(luma - luma[:, :1]).max(1)
    assert np.quantile(contrast, 0.01) > 0.15
    assert 0.4 < contrast.mean() < 0.7
    assert luma[:, 0].std() > 0.15  # papers of all kinds


def test_stated_colours_are_kept_to_the_jitter(draw_glyphs: Draw) -> None:
    stated = {"colours": [[0.9, 0.8, 0.6], [0.2, 0.1, 0.5]]}
    draw_glyphs("free", per_class=200, glyphs=PLAIN)
    draw_glyphs("same", per_class=200, glyphs=PLAIN | stated)
    draw_glyphs("near", per_class=200, glyphs=PLAIN | stated | {"jitter": 0.1})
    free, same, near = (read(name).reshape(1000, 3, -1) / 255.0 for name in ("free", "same", "near"))
    assert np.abs(same[..., 0] - [0.9, 0.8, 0.6]).max() <= 0.5 / 255
    # what is not paper at all is ink: pixel by pixel the same as in free colours, whose characters stand there, too
    cover = masks(free.reshape(1000, 3, 28, 28)).reshape(1000, -1)
    ink = np.array([0.2, 0.1, 0.5])[:, None] * np.ones(28 * 28)
    full = (cover > 0.999)[:, None] & np.ones((3, 1), bool)
    assert full.any()
    assert np.abs(same - ink)[full].max() <= 2 / 255  # the mask is that of rounded pixels
    moved = near[..., 0] - [0.9, 0.8, 0.6]
    assert 0.09 < np.abs(moved).max() <= 0.1 + 0.5 / 255
    assert np.abs(moved.mean(0)).max() < 0.01
    assert np.abs(near - ink)[full].max() <= 0.1 + 2 / 255


def test_noise_and_fade_have_their_strength(draw_glyphs: Draw) -> None:
    draw_glyphs("plain", per_class=100, glyphs=PLAIN)
    draw_glyphs("noisy", per_class=100, glyphs=PLAIN | {"noise": 0.1})
    draw_glyphs("faded", per_class=100, glyphs=PLAIN | {"fade": 1})
    plain, noisy, faded = (read(name) / 255.0 for name in ("plain", "noisy", "faded"))
    middle = (plain > 0.3) & (plain < 0.7)  # where no noise is cut off at black or white
    difference = np.where(middle, noisy - plain, np.nan).reshape(500, -1)
    spread = np.nanstd(difference[middle.reshape(500, -1).sum(1) > 500], axis=1)
    assert abs(np.nanmean(difference)) < 0.002
    assert 0.045 < spread.mean() < 0.055
    assert 0.09 < spread.max() < 0.105
    assert spread.min() < 0.01
    across = np.abs(faded[..., 0, 0] - faded[..., -1, -1]), np.abs(faded[..., 0, -1] - faded[..., -1, 0])
    assert np.maximum(*across).mean() > 0.2
    assert np.abs(plain[..., 0, 0] - plain[..., -1, -1]).max() == 0


def test_a_face_without_a_character_is_refused(draw_glyphs: Draw) -> None:
    draw_glyphs("mine", glyphs={"characters": "Aか"})
    with pytest.raises(UserError, match=r"^data/raw/mine/DejaVuSans\.ttf: has no character U\+304B"):
        prepare("mine")
    draw_glyphs("blank", faces=SANS, glyphs={"characters": "A\u2800"})  # which the face has, but without a dot
    with pytest.raises(UserError, match=r"has no character U\+2800"):
        prepare("blank")


def test_a_file_that_is_no_font_is_refused(place: Callable[..., Path], draw_glyphs: Draw) -> None:
    draw_glyphs("mine")
    place("broken", "mine", b"\0\1\0\0 no font")
    with pytest.raises(UserError, match=r"^data/raw/broken/raw\.bin: not a font"):
        open_raw(dataset("broken"))


def test_prepared_glyphs_are_split_by_class(draw_glyphs: Draw) -> None:
    characters = "ABCDEFGHIJKLMNOPQRST"
    split = {"rule": "classes", "val": 0.1, "test": 0.25, "seed": 0}
    draw_glyphs("sans", glyphs={"characters": characters}, per_class=12, split=split)
    shift = ("DejaVuSerif.ttf",)
    draw_glyphs("serif", faces=shift, glyphs={"characters": characters}, per_class=6, split=split)
    draw_glyphs("again", glyphs={"characters": characters}, per_class=6, split=split | {"seed": 1})
    classes: dict[str, dict[str, set[int]]] = {}
    for name in ("sans", "serif", "again"):
        prepare(name)
        index = pd.DataFrame(read_index(name))
        classes[name] = {part: set(rows) for part, rows in index.groupby("split")["label"]}
        sizes = {part: len(labels) for part, labels in classes[name].items()}
        assert sizes == {"train": 13, "val": 2, "test": 5}
        assert set.union(*classes[name].values()) == set(range(20))
    assert classes["sans"] == classes["serif"] != classes["again"]
    card, index = read_card("sans"), pd.DataFrame(read_index("sans"))
    assert card["counts"] == {
        part: {
            f"U+{ord(character):04X}": 12 * (label in classes["sans"][part])
            for label, character in enumerate(characters)
        }
        for part in ("train", "val", "test")
    }
    train = open_images("sans")[(index["split"] == "train").to_numpy()] / 255.0
    np.testing.assert_allclose(card["mean"], train.mean(axis=(0, 2, 3)), rtol=1e-9)


def test_too_few_classes_for_the_split(draw_glyphs: Draw) -> None:
    split = {"rule": "classes", "val": 0.1, "test": 0.5, "seed": 0}
    draw_glyphs("mine", glyphs={"characters": "AB"}, split=split)
    with pytest.raises(UserError, match=r"^mine: 2 classes are too few"):
        prepare("mine")


def test_what_ships_can_be_drawn(project: Path) -> None:
    """Every face has every character, and the two domains differ in their faces alone."""
    from gessl.data.readers.glyphs import read

    drawn = {name: entry for name in dataset_names() if (entry := dataset(name)).glyphs}
    for entry in drawn.values():
        raw = read(entry, bundled(""))
        chunk = next(raw.chunks())
        assert len(set(raw.classes)) == entry.classes
        assert chunk.images.shape == (len(chunk.labels), 3, *entry.size)
    sans, serif = drawn["glyphs"], drawn["glyphs-shift"]
    assert (sans.glyphs, sans.split, sans.size) == (serif.glyphs, serif.split, serif.size)
    faces = {entry.name: {file.sha256 for file in entry.files} for entry in (sans, serif)}
    assert not faces["glyphs"] & faces["glyphs-shift"]
    assert all(file.name.startswith("DejaVuSerif") for file in serif.files)
    small, all_of_them = drawn["glyphs-small"].glyphs, sans.glyphs
    assert small is not None
    assert all_of_them is not None
    assert set(small.characters) < set(all_of_them.characters)
    assert drawn["glyphs-small"].split.rule == "stratified"


def vectors(entry: Dataset, face: str) -> np.ndarray:
    """Every character of the entry as a blurred bitmap of 32 x 32, its longer side 28, `[classes, 1024]`."""
    assert entry.glyphs is not None
    font = ImageFont.truetype(bundled(face), 100)
    rows = []
    for character in entry.glyphs.characters:
        left, top, right, bottom = font.getbbox(character)
        fitted = font.font_variant(size=min(400, 2800 / max(right - left, bottom - top)))
        left, top, right, bottom = fitted.getbbox(character)
        sheet = Image.new("L", (32, 32))
        origin = ((32 - left - right) / 2, (32 - top - bottom) / 2)
        ImageDraw.Draw(sheet).text(origin, character, fill=255, font=fitted)
        rows.append(np.asarray(sheet.filter(ImageFilter.GaussianBlur(1)), np.float64).ravel())
    return np.stack(rows)


@pytest.mark.parametrize("face", ["DejaVuSans.ttf", "DejaVuSansMono-BoldOblique.ttf", "DejaVuSerif-Italic.ttf"])
def test_no_two_classes_look_alike(face: str, project: Path) -> None:
    """As the registry says: two characters of one face differ by 5.8 % of their squared lengths."""
    rows = vectors(dataset("glyphs"), face)
    squares = (rows**2).sum(1)
    lengths = squares[:, None] + squares
    difference = (lengths - 2 * rows @ rows.T) / lengths
    np.fill_diagonal(difference, 1)
    assert difference.min() > 0.058
