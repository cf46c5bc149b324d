"""SimCLR's two views on one thread of a CPU: ours against the usual transforms on Pillow's pictures.

    python -m benchmarks.views [--images 64] [--rounds 7]

All arms start from the same pictures in memory and give normalised float32 views: at 224 pixels from pictures of
500 x 375, at 32 from pictures of that size. The other arm is the composition of lightly's SimCLRTransform
(https://github.com/lightly-ai/lightly/blob/master/lightly/transforms/simclr_transform.py): RandomResizedCrop, flip,
ColorJitter, RandomGrayscale and Pillow's own GaussianBlur; lightly's own class runs, too, where it is installed. The
arms take turns; the median of rounds counts. Prints Markdown.
"""

import argparse
import os
import platform
import random
import statistics
import time
from collections.abc import Callable

import numpy as np
import PIL
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.tables import table
from gessl.allocator import keep_freed_memory
from gessl.data.encoded import _resized_crop
from gessl.data.views import ViewPolicy, draw_views, finish_views, make_views

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POLICY = ViewPolicy(jitter=(0.8, 0.8, 0.8, 0.2), gray_prob=0.2, blur_prob=0.5, flip=0.5)
SIZES = ((224, 375, 500), (32, 32, 32))  # of views, and height and width of the pictures
Arm = Callable[[list[NDArray[np.uint8]], int], None]


class Blur:
    """lightly's GaussianBlur: Pillow's, its radius uniform in [0.1, 2]."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        if random.random() >= 0.5:
            return picture
        return picture.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def composed(side: int) -> Callable[[Image.Image], Tensor]:
    """The same operations of torchvision's as lightly's transform has."""
    jitter = v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8)
    end = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    crop = v2.RandomResizedCrop(side, (0.08, 1.0))
    found: Callable[[Image.Image], Tensor] = v2.Compose(
        [crop, v2.RandomHorizontalFlip(), jitter, v2.RandomGrayscale(0.2), Blur(), *end]
    )
    return found


def on_pillow(make: Callable[[int], Callable[[Image.Image], Tensor]]) -> Arm:
    """An arm that makes each view of a Pillow picture by a transform."""

    def arm(pictures: list[NDArray[np.uint8]], side: int) -> None:
        view = make(side)
        for pixels in pictures:
            picture = Image.fromarray(pixels)
            torch.stack([view(picture), view(picture)])

    return arm


def ours(pictures: list[NDArray[np.uint8]], side: int) -> None:
    """Two views of each picture, as a run makes them of either store."""
    mean, std = (torch.tensor(each).view(1, 1, 3, 1, 1) for each in (MEAN, STD))
    generator, height, width = torch.Generator().manual_seed(0), *pictures[0].shape[:2]
    if (height, width) == (side, side):
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
        views = make_views(images, (POLICY,) * 2, generator).views
    else:
        drawn = draw_views((POLICY,) * 2, len(pictures), (height, width), generator)
        boxes = torch.stack([each.box for each in drawn.views])
        cut = np.stack(
            [
                np.stack([_resized_crop(p, box, (side, side)) for p, box in zip(pictures, view.tolist(), strict=True)])
                for view in boxes
            ]
        )
        views = finish_views([torch.from_numpy(cut)], drawn).views
    views.sub_(mean).div_(std)


def arms() -> dict[str, Arm]:
    """By name; lightly's own where it is there."""
    found: dict[str, Arm] = {"ours": ours, "torchvision on Pillow, as lightly composes it": on_pillow(composed)}
    try:
        from lightly.transforms import SimCLRTransform
    except ImportError:
        return found

    def own(side: int) -> Callable[[Image.Image], Tensor]:
        # the same strengths; its own defaults have a minimal scale of 0.08, too
        whole = SimCLRTransform(
            input_size=side, cj_strength=1.0, cj_bright=0.8, cj_contrast=0.8, cj_sat=0.8, cj_hue=0.2
        )
        one: Callable[[Image.Image], Tensor] = whole.transforms[0]
        return one

    return {**found, "lightly's SimCLRTransform": on_pillow(own)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=64)
    options.add_argument("--rounds", type=int, default=7)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as a job does; all arms have it
    print(
        f"{platform.machine()}, one thread, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, Pillow {PIL.__version__}; {chosen.images} pictures, {chosen.rounds} rounds\n"
    )
    rows = []
    for side, height, width in SIZES:
        rng = np.random.default_rng(0)
        pictures = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(chosen.images)]
        seconds: dict[str, list[float]] = {name: [] for name in arms()}
        for number in range(chosen.rounds + 1):  # the first warms up
            for name, arm in arms().items():
                began = time.process_time()
                arm(pictures, side)
                if number:
                    seconds[name].append(time.process_time() - began)
        middle = {name: statistics.median(each) for name, each in seconds.items()}
        for name, each in middle.items():
            rows.append((side, name, f"{2 * chosen.images / each:.0f}", f"{each / middle['ours']:.2f}"))
    print(table(("side", "arm", "views / s", "time / ours"), rows))


if __name__ == "__main__":
    main()
