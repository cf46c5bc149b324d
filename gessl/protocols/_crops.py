"""Images as classifiers of photographs take them: a random crop in training, the centre in test.

torchvision's RandomResizedCrop (area 0.08 to 1, width / height 3/4 to 4/3) with a horizontal flip, and its Resize and
CenterCrop, both bilinear with antialiasing. Crops are cut out of images as they are stored, photographs at full size.
"""

from typing import Annotated

import torch
from torch import Tensor, nn

from gessl.data.stores import Store
from gessl.data.views import ViewPolicy
from gessl.errors import UserError
from gessl.nets.encoder import Encoder
from gessl.protocols.embed import load_images
from gessl.settings import Range

Side = Annotated[int, Range(ge=1, le=10_000)]
RANDOM = ViewPolicy(flip=0.5)


class Crops:
    """Crops of the images of a store.

    Args:
        images: all of them, as many channels as the encoder takes.
        crop: height and width of a crop in pixels.
        resize: of the image whose centre is cut out in test.
        device: where to make them.
    """

    def __init__(self, images: Store, crop: int, resize: int, device: torch.device) -> None:
        self._channels = images.shape[1]
        self._images = images.resized(self._channels, (crop, crop), (resize, resize))
        self._device = device

    def random(self, positions: Tensor, random: torch.Generator) -> Tensor:
        """One of each image at `positions` [n], in [0, 1], float32 [n, C, crop, crop]; `random` determines them."""
        (made,) = self._images.load(positions.cpu().numpy(), (RANDOM,), [random]).moved(self._device).views()
        return made.views[0].expand(-1, self._channels, -1, -1)  # grey photographs stay grey

    def central(self, positions: Tensor) -> Tensor:
        """The centre of each image at `positions` [n], in [0, 1], float32 [n, C, crop, crop]."""
        return load_images(self._images, positions).to(self._device)


def require_crops(protocol: str, crop: int, encoder: nn.Module) -> None:
    """Refuse crops that an encoder cannot take: a ViT knows the places of as many patches as it was trained with.

    Raises:
        UserError: says so.
    """
    if isinstance(encoder, Encoder) and "tokens" in encoder.offers and encoder.size != (crop, crop):
        raise UserError(
            f"{protocol}: crops of {crop} pixels, but the encoder ({encoder.backbone_name}) was trained on "
            f"{encoder.size[0]} and takes no others; set crop to that"
        )
