"""Images with a class to see, and networks that tell them apart a little."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

CLASSES, PER_CLASS = 6, 40
LABELS = np.arange(CLASSES * PER_CLASS) % CLASSES
SPLIT = np.select([np.arange(240) < 84, np.arange(240) < 144], ["train", "val"], "test")


def make_images() -> NDArray[np.uint8]:
    """uint8 [240, 1, 8, 8]; image i is of class i % 6: a bright row in noise."""
    random = np.random.default_rng(0)
    images = random.integers(0, 140, (CLASSES * PER_CLASS, 1, 8, 8))
    for i in range(len(images)):
        images[i, 0, i % CLASSES] += 90
    return images.astype(np.uint8)


def network(seed: int = 0) -> nn.Module:
    """Left in train mode, with batch normalisation, dropout, and a part that is in eval mode already."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Dropout(0.5), nn.Sequential(nn.Linear(32, 16), nn.Tanh()),
        )  # fmt: skip
        made(torch.rand(64, 1, 8, 8))
    made[6].eval()
    return made


def snapshot(module: nn.Module) -> list[Any]:
    """Modes, parameters and buffers, to be compared later."""
    return [
        {name: part.training for name, part in module.named_modules()},
        {name: tensor.detach().numpy().tobytes() for name, tensor in module.state_dict().items()},
        [tensor.requires_grad for tensor in module.parameters()],
        [tensor.grad for tensor in module.parameters()],
    ]


def by_hand(module: nn.Module, images: NDArray[np.uint8]) -> Tensor:
    """Features, one image after the other."""
    modes = [part.training for part in module.modules()]
    module.eval()
    with torch.no_grad():
        rows = [module(torch.from_numpy(image[None]).float() / 255)[0] for image in images]
    for part, mode in zip(module.modules(), modes, strict=True):
        part.training = mode
    return torch.stack(rows)
