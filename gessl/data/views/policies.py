"""The named view policies, each with its source.

All share one order of operations, bilinear interpolation and torchvision's blur with SimCLR's width (see
`parameters.blur_width`), where some of the sources crop with bicubic interpolation or blur with Pillow's or OpenCV's
Gaussian of another width.
"""

from dataclasses import replace

from gessl.data.views.policy import ViewPolicy

# Digits: our choice. A flipped digit is another digit (or none), and a small crop of 8 x 8 pixels shows no digit: hence
# no flip and crops of at least 40 %.
_DIGITS = ViewPolicy(
    crop_scale=(0.4, 1.0),
    jitter=(0.4, 0.4, 0.0, 0.0),
    blur_prob=0.3,
    blur_sigma=(0.1, 1.0),
)
_DIGITS_WEAK = ViewPolicy(crop_scale=(0.4, 1.0))
_DIGITS_PLAIN = ViewPolicy(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))  # as crops cost: docs/methods/generative.md
# Half the side, as a small crop of 96 is of 224, from 3 to 5 of the 8 pixels.
_DIGITS_SMALL = replace(_DIGITS, crop_scale=(0.15, 0.4), size=4)

# https://github.com/htdt/self-supervised/blob/master/datasets/transforms.py and cfg.py. That code jitters before the
# crop, so contrast is taken over the whole image.
_CIFAR_WMSE = ViewPolicy(crop_scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), gray_prob=0.1, flip=0.5)

# solo-learn's recipes for CIFAR: files of https://github.com/vturrisi/solo-learn/tree/main/scripts/pretrain/cifar
_CIFAR_STRONG = ViewPolicy(  # augmentations/symmetric.yaml
    jitter=(0.8, 0.8, 0.8, 0.2), gray_prob=0.2, blur_prob=0.5, flip=0.5
)
_CIFAR_WEAK = replace(_CIFAR_STRONG, jitter=(0.4, 0.4, 0.4, 0.1))  # augmentations/symmetric_weak.yaml
_CIFAR_ASYM = (  # augmentations/asymmetric.yaml: BYOL's recipe without its blur
    ViewPolicy(jitter=(0.4, 0.4, 0.2, 0.1), gray_prob=0.2, flip=0.5),
    ViewPolicy(jitter=(0.4, 0.4, 0.2, 0.1), gray_prob=0.2, flip=0.5, solarize_prob=0.2),
)
_CIFAR_PLAIN = ViewPolicy(flip=0.5)  # augmentations/reconstruction.yaml; the second view of augmentations/ressl.yaml
_CIFAR_RESSL = replace(_CIFAR_STRONG, jitter=(0.4, 0.4, 0.2, 0.1))  # the first view of augmentations/ressl.yaml
_CIFAR_VICREG = ViewPolicy(  # vicreg.yaml
    crop_scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), gray_prob=0.2, solarize_prob=0.1, flip=0.5
)
_CIFAR_SOLO_WMSE = ViewPolicy(  # wmse.yaml, stronger than the views of W-MSE's authors above
    crop_scale=(0.2, 1.0), jitter=(0.8, 0.8, 0.8, 0.2), gray_prob=0.2, flip=0.5
)
# Our choice: the strong views, and small crops of half the side with the areas of ../cifar-multicrop (solo-learn's own
# multi-crop of SwAV on CIFAR, which makes six crops of 18 pixels and larger main crops).
_CIFAR_SMALL = replace(_CIFAR_STRONG, crop_scale=(0.08, 0.5), size=16)

# Glyphs: our choice. Like digits, a mirrored character is another one (or none), and a small crop shows no character.
# Colour is noise there, so it is jittered as on CIFAR.
_GLYPHS = ViewPolicy(
    crop_scale=(0.3, 1.0),
    jitter=(0.4, 0.4, 0.4, 0.1),
    gray_prob=0.2,
    blur_prob=0.3,
    blur_sigma=(0.1, 1.0),
)
_GLYPHS_WEAK = ViewPolicy(crop_scale=(0.3, 1.0))
_GLYPHS_SMALL = replace(_GLYPHS, crop_scale=(0.1, 0.4), size=14)

# SimCLR (https://arxiv.org/abs/2002.05709, appendix A, colour strength 1.0), as SwAV's authors have it too:
# get_color_distortion in https://github.com/facebookresearch/swav/blob/main/src/multicropdataset.py
_IMAGENET_STRONG = ViewPolicy(jitter=(0.8, 0.8, 0.8, 0.2), gray_prob=0.2, blur_prob=0.5, flip=0.5)
# https://github.com/facebookresearch/swav/blob/main/scripts/swav_800ep_pretrain.sh
_SWAV_LARGE = replace(_IMAGENET_STRONG, crop_scale=(0.14, 1.0))
_SWAV_SMALL = replace(_IMAGENET_STRONG, crop_scale=(0.05, 0.14), size=96)
# BYOL, https://arxiv.org/abs/2006.07733, table 6 (appendix B)
_BYOL = ViewPolicy(jitter=(0.4, 0.4, 0.2, 0.1), gray_prob=0.2, blur_prob=1.0, flip=0.5)
_BYOL_SECOND = replace(_BYOL, blur_prob=0.1, solarize_prob=0.2)
# DataAugmentationDINO and the defaults of https://github.com/facebookresearch/dino/blob/main/main_dino.py
_DINO_FIRST = replace(_BYOL, crop_scale=(0.4, 1.0))
_DINO_SECOND = replace(_BYOL_SECOND, crop_scale=(0.4, 1.0))
_DINO_SMALL = replace(_BYOL, crop_scale=(0.05, 0.4), blur_prob=0.5, size=96)

POLICIES: dict[str, tuple[ViewPolicy, ...]] = {
    "digits": (_DIGITS,) * 2,
    "digits-4": (_DIGITS,) * 4,
    "digits-weak": (_DIGITS_WEAK,) * 2,
    "digits-weak-second": (_DIGITS, _DIGITS_WEAK),
    "digits-crops": (_DIGITS,) * 2 + (_DIGITS_SMALL,) * 2,
    "digits-mae": (_DIGITS_PLAIN,),
    "cifar-wmse": (_CIFAR_WMSE,) * 2,
    "cifar-wmse-4": (_CIFAR_WMSE,) * 4,
    "cifar-strong": (_CIFAR_STRONG,) * 2,
    "cifar-weak": (_CIFAR_WEAK,) * 2,
    "cifar-asym": _CIFAR_ASYM,
    "cifar-strong-weak": (_CIFAR_RESSL, _CIFAR_PLAIN),
    "cifar-vicreg": (_CIFAR_VICREG,) * 2,
    "cifar-solo-wmse": (_CIFAR_SOLO_WMSE,) * 2,
    "cifar-mae": (_CIFAR_PLAIN,),
    "cifar-crops": (_CIFAR_STRONG,) * 2 + (_CIFAR_SMALL,) * 4,
    "glyphs": (_GLYPHS,) * 2,
    "glyphs-4": (_GLYPHS,) * 4,
    "glyphs-crops": (_GLYPHS,) * 2 + (_GLYPHS_SMALL,) * 4,
    "glyphs-strong-weak": (_GLYPHS, _GLYPHS_WEAK),
    "glyphs-mae": (_GLYPHS_WEAK,),
    # for images that were prepared with 224 x 224 pixels
    "imagenet-strong": (_IMAGENET_STRONG,) * 2,
    "imagenet-asym": (_BYOL, _BYOL_SECOND),
    "imagenet-multicrop-swav": (_SWAV_LARGE,) * 2 + (_SWAV_SMALL,) * 6,
    "imagenet-dino": (_DINO_FIRST, _DINO_SECOND) + (_DINO_SMALL,) * 8,
}
"""Named policies: one `ViewPolicy` per view of an image, those of small crops last."""
