"""Backbones: images `[B, C, H, W]` to features `[B, F]`."""

from collections.abc import Callable

from torch import Tensor, nn


class SmallConv(nn.Module):
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

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, 64]`."""
        return self.body(images).mean((2, 3))


def resnet18_cifar(channels: int) -> nn.Module:
    """ResNet-18 for 32x32 images: torchvision's, with a 3x3 stride-1 stem and no max-pooling; 512 features.

    The stem pads by 1, so the first map keeps 32x32, as SimCLR's appendix B.9 and the W-MSE code have it
    (https://github.com/htdt/self-supervised/blob/master/model.py). solo-learn pads by 2, which gives 34x34 maps.
    """
    from torchvision.models import resnet18

    network = resnet18(weights=None)
    network.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    network.fc = nn.Identity()
    network.features = 512
    return network


def resnet50(channels: int) -> nn.Module:
    """torchvision's ResNet-50 for images of about 224 pixels, without its classifier; 2048 features."""
    from torchvision.models import resnet50 as architecture

    network = architecture(weights=None)
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.fc = nn.Identity()
    network.features = 2048
    return network


BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    "small-conv": SmallConv,
    "resnet18-cifar": resnet18_cifar,
    "resnet50": resnet50,
}
