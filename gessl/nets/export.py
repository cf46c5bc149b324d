"""A pretrained backbone for other programs: weights under torchvision's names, without any of this package."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gessl.errors import UserError
from gessl.files import atomic_write
from gessl.nets.backbones import patch_side
from gessl.nets.encoder import Encoder, load_encoder


def export_backbone(encoder_path: Path, out: Path) -> None:
    """Write the backbone of a saved encoder as safetensors that torchvision's own model loads.

    `load_state_dict(load_file(out), strict=False)` then lacks the classifier alone. The file's metadata (key
    "torchvision", JSON) says which model that is and how its input is normalised.

    Args:
        encoder_path: what pretraining wrote.
        out: the file to write.

    Raises:
        UserError: the encoder cannot be read, or torchvision has no such model.
    """
    from safetensors.torch import save

    encoder = load_encoder(encoder_path)
    meta = {
        "model": _torchvision_model(encoder),
        "input": "(images in [0, 1] - mean) / std, by channel",
        "mean": encoder.mean.flatten().tolist(),
        "std": encoder.std.flatten().tolist(),
        "size": encoder.size,
    }
    tensors = {name: tensor.contiguous() for name, tensor in encoder.backbone.state_dict().items()}
    content = save(tensors, metadata={"torchvision": json.dumps(meta, sort_keys=True)})
    atomic_write(out, lambda file: file.write(content))


def _torchvision_model(encoder: Encoder) -> str:
    """Python that builds torchvision's model, up to its classifier."""
    name = encoder.backbone_name
    if encoder.lab:
        raise UserError(f"backbone {name}: two halves, for lightness and for colour, are no one model of torchvision's")
    if name not in _MODELS:
        raise UserError(f"backbone {name}: torchvision has no such model; it has {', '.join(_MODELS)}")
    return _MODELS[name](encoder)


def _resnet18_cifar(encoder: Encoder) -> str:
    return f"{_resnet18_pool(encoder)}; model.maxpool = nn.Identity()"


def _resnet18_pool(encoder: Encoder) -> str:
    conv1 = f"nn.Conv2d({_channels(encoder)}, 64, 3, padding=1, bias=False)"
    return f"model = torchvision.models.resnet18(); model.conv1 = {conv1}"


def _resnet50(encoder: Encoder) -> str:
    model = "model = torchvision.models.resnet50()"
    if _channels(encoder) == 3:
        return model
    return f"{model}; model.conv1 = nn.Conv2d({_channels(encoder)}, 64, 7, stride=2, padding=3, bias=False)"


def _vit(encoder: Encoder) -> str:
    vit: Any = encoder.backbone
    patch, width = patch_side(encoder.size), int(encoder.features)
    block = vit.encoder.layers[0]
    model = (
        f"model = torchvision.models.VisionTransformer(image_size={encoder.size[0]}, patch_size={patch}, "
        f"num_layers={len(vit.encoder.layers)}, num_heads={block.num_heads}, hidden_dim={width}, mlp_dim={vit.mlp_dim})"
    )
    if _channels(encoder) == 3:
        return model
    return f"{model}; model.conv_proj = nn.Conv2d({_channels(encoder)}, {width}, {patch}, {patch})"


def _channels(encoder: Encoder) -> int:
    return encoder.mean.numel()


_MODELS: dict[str, Callable[[Encoder], str]] = {
    "resnet18-cifar": _resnet18_cifar,
    "resnet18-pool": _resnet18_pool,
    "resnet50": _resnet50,
    "small-vit": _vit,
    "vit-tiny": _vit,
    "vit-small": _vit,
}
