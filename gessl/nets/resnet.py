"""torchvision's ResNets without their classifier; imported only when one is built."""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet


class ResNet(TorchvisionResNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ResNet, with its last maps within reach; names in the state dict are torchvision's."""

    def __init__(self, block: type[BasicBlock | Bottleneck], layers: list[int]) -> None:
        super().__init__(block, layers)
        self.features = 512 * block.expansion
        self.fc = nn.Identity()

    def maps(self, images: Tensor) -> Tensor:
        """Maps `[B, F, h, w]` of the last stage."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, F]`: the maps' spatial means."""
        return self.avgpool(self.maps(images)).flatten(1)


def resnet18_cifar(channels: int) -> ResNet:
    """ResNet-18 for 32x32 images: torchvision's, with a 3x3 stride-1 stem and no max-pooling; 512 features.

    The stem pads by 1, so the first map keeps 32x32, as SimCLR's appendix B.9 and the W-MSE code have it
    (https://github.com/htdt/self-supervised/blob/master/model.py). solo-learn pads by 2, which gives 34x34 maps.
    """
    network = resnet18_pool(channels)
    network.maxpool = nn.Identity()
    return network


def resnet18_pool(channels: int) -> ResNet:
    """ResNet-18 for 64x64 images, as in the W-MSE code: as `resnet18_cifar`, but its max-pooling stays."""
    network = ResNet(BasicBlock, [2, 2, 2, 2])
    network.conv1 = _stem(nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False))
    return network


def resnet50(channels: int) -> ResNet:
    """torchvision's ResNet-50 for images of about 224 pixels, without its classifier; 2048 features."""
    network = ResNet(Bottleneck, [3, 4, 6, 3])
    if channels != 3:
        network.conv1 = _stem(nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False))
    return network


def _stem(convolution: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(
        convolution.weight, mode="fan_out", nonlinearity="relu"
    )  # as torchvision starts all of them
    return convolution
