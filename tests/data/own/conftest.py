"""Pictures that tests make, and a project to add them to."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from gessl.rng import numpy_generator
from tests.data.conftest import ROOT


def draw(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A picture of its own: colours and a shape that depend on the seed."""
    rng = numpy_generator(0, "own pictures", seed)
    colours = [tuple(rng.integers(0, 256, 3).tolist()) for _ in range(2)]
    image = Image.new("RGB", size, colours[0])
    left, top = rng.integers(0, 15, 2).tolist()
    ImageDraw.Draw(image).ellipse((left, top, left + 14, top + 10), fill=colours[1])
    return image


@pytest.fixture
def own_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with the real registry."""
    shutil.copytree(ROOT / "config", tmp_path / "project/config")
    (tmp_path / "project/data/raw").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """`photos(counts, top="")`: a folder with as many pictures in each class folder, below `top`; returns it."""
    drawn = iter(range(100_000))

    def make(counts: dict[str, int], top: str = "") -> Path:
        folder = tmp_path / "photos"
        for name, count in counts.items():
            place = folder / top / name
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                draw(next(drawn)).save(place / f"{number}.png")
        return folder

    return make
