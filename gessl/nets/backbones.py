"""Backbones: images `[B, C, H, W]` to features `[B, F]`; which there are, and what each offers beyond that."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from gessl.errors import UserError

# side of the images: side of a ViT's patches; 224 -> 16 is the ViT paper's, 32 -> 4 is usual on CIFAR
PATCHES = {8: 2, 28: 4, 32: 4, 64: 8, 224: 16}


class Convolutional(nn.Module):
    """A stack `body` that gives feature maps; features are the maps' spatial means."""

    features: int
    body: nn.Sequential

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps `[B, F, h, w]`."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, F]`."""
        return self.maps(images).mean((2, 3))


class SmallConv(Convolutional):
    """Three 3x3 convolutions (16, 32, 64 channels; stride 1, 2, 2) for 8x8 images; features are the 64 spatial means.

    Strides in place of Conv4's max-pooling, which on a CPU costs as much as the convolutions.
    """

    features = 64

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((channels, 16, 1), (16, 32, 2), (32, self.features, 2)):
            layers += [nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers)


class FewShotConv(Convolutional):
    """The few-shot literature's Conv4 (or 5): blocks of 3x3 convolution, BatchNorm, ReLU and 2x2 max-pooling.

    64 channels in each block, as in Prototypical Networks (https://arxiv.org/abs/1703.05175, section 3). Features are
    the 64 spatial means of the last maps; there, they are the maps' entries in a row (64 for 28x28, 1600 for 84x84).
    """

    features = 64

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.least = 2**blocks  # each block halves the maps
        layers: list[nn.Module] = []
        for before in (channels, *[self.features] * (blocks - 1)):
            convolution = nn.Conv2d(before, self.features, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(self.features), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers)

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps `[B, 64, h, w]`; refuses what its poolings would leave nothing of."""
        if min(images.shape[2:]) < self.least:
            size = "x".join(map(str, images.shape[2:]))
            raise UserError(
                f"conv{self.least.bit_length() - 1}: images or crops of {size}; its blocks need {self.least}"
            )
        return super().maps(images)


def _resnet18_cifar(channels: int, size: tuple[int, int]) -> nn.Module:
    from gessl.nets.resnet import resnet18_cifar

    return resnet18_cifar(channels)


def _resnet18_pool(channels: int, size: tuple[int, int]) -> nn.Module:
    from gessl.nets.resnet import resnet18_pool

    return resnet18_pool(channels)


def _resnet50(channels: int, size: tuple[int, int]) -> nn.Module:
    from gessl.nets.resnet import resnet50

    return resnet50(channels)


def _vit(width: int, heads: int, depth: int = 12) -> Callable[[int, tuple[int, int]], nn.Module]:
    def build(channels: int, size: tuple[int, int]) -> nn.Module:
        from gessl.nets.vit import ViT

        return ViT(channels, size[0], patch_side(size), width=width, depth=depth, heads=heads)

    return build


@dataclass(frozen=True)
class Backbone:
    """How to build a backbone, and what it is good for.

    Attributes:
        build: from (channels, size of the images) to a module with `features` and what it offers.
        offers: "maps" (feature maps) or "tokens" (a ViT's), besides features.
        least: smallest side of an image.
        sides: the only sides of (square) images that it takes; empty: any.
    """

    build: Callable[[int, tuple[int, int]], nn.Module]
    offers: frozenset[str] = frozenset({"maps"})
    least: int = 1
    sides: tuple[int, ...] = ()


_TOKENS = frozenset({"tokens"})
BACKBONES: dict[str, Backbone] = {
    "small-conv": Backbone(lambda channels, size: SmallConv(channels)),
    "conv4": Backbone(lambda channels, size: FewShotConv(channels, 4), least=16),
    "conv5": Backbone(lambda channels, size: FewShotConv(channels, 5), least=32),
    "resnet18-cifar": Backbone(_resnet18_cifar),
    "resnet18-pool": Backbone(_resnet18_pool),
    "resnet50": Backbone(_resnet50),
    "small-vit": Backbone(_vit(96, 3, depth=4), _TOKENS, sides=tuple(PATCHES)),  # our choice, for 8x8 images
    # width and heads of DeiT-Ti and DeiT-S (https://arxiv.org/abs/2012.12877, table 1)
    "vit-tiny": Backbone(_vit(192, 3), _TOKENS, sides=tuple(PATCHES)),
    "vit-small": Backbone(_vit(384, 6), _TOKENS, sides=tuple(PATCHES)),
}


def require_size(backbone: str, size: tuple[int, int]) -> None:
    """Refuse images of a size that a backbone cannot take.

    Raises:
        UserError: says which sizes it takes.
    """
    known, shown = BACKBONES[backbone], f"{size[0]}x{size[1]}"
    if known.sides and (size[0] != size[1] or size[0] not in known.sides):
        sides = ", ".join(map(str, known.sides))
        raise UserError(f"backbone {backbone}: no patch size is known for images of {shown}; square ones of {sides} go")
    if min(size) < known.least:
        raise UserError(f"backbone {backbone}: images of {shown} are too small; it needs {known.least}x{known.least}")


def require_offer(backbone: str, needs: str, *, channels: int, size: tuple[int, int]) -> None:
    """Refuse a backbone that lacks what a method needs, or cannot take the data set's images.

    Args:
        backbone: key of `BACKBONES`.
        needs: the method's `needs`: "features", "maps", "tokens" or "lab".
        channels: of the images.
        size: height and width of the images.

    Raises:
        UserError: one line that says what is lacking and what would do.
    """
    require_size(backbone, size)
    if needs == "lab":
        if channels != 3:
            raise UserError(
                f"backbone {backbone}: lightness and colour need RGB images; these have {channels} channel(s)"
            )
    elif needs != "features" and needs not in BACKBONES[backbone].offers:
        able = ", ".join(name for name, known in BACKBONES.items() if needs in known.offers)
        raise UserError(f"backbone {backbone}: the method needs {needs}, which it does not give; choose from {able}")


def patch_side(size: tuple[int, int]) -> int:
    """Side of a ViT's patches for images of `size`.

    Raises:
        UserError: none is known.
    """
    require_size("vit-tiny", size)
    return PATCHES[size[0]]
