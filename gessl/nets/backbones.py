"""Backbones: images `[B, C, H, W]` to features `[B, F]`."""

from collections.abc import Callable

from torch import Tensor, nn


class SmallConv(nn.Module):
    """Three 3x3 convolution blocks (16, 32, 64 channels) for 8x8 images; features are the 64 spatial means.

    Max-pooling after the first two blocks leaves a 2x2 map of an 8x8 image, as Conv4 of the few-shot literature does
    with larger ones.
    """

    features = 64

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (channels, 16, 32, self.features)
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            if index < 2:
                layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
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


BACKBONES: dict[str, Callable[[int], nn.Module]] = {"small-conv": SmallConv, "resnet18-cifar": resnet18_cifar}
