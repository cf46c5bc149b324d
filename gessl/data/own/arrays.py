"""Images in NumPy's files: `.npz` with arrays of images and labels, perhaps by split, or one `.npy` of images."""

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gessl.data.own.found import SPLIT_WORDS, Found, Trove, class_name
from gessl.errors import UserError
from gessl.files import reason
from gessl.npz import DAMAGE, load_npz, map_npy

IMAGES = {"images", "image", "x", "data", "imgs"}
LABELS = {"labels", "label", "y", "targets", "classes"}


def read_arrays(path: Path) -> Trove:
    """The images of a file, named `<split>-<number>.png`, in order.

    Args:
        path: an `.npy` file of uint8 images [n, H, W], [n, H, W, C] or [n, C, H, W] with C = 1 or 3, or an `.npz` file
            of these and of labels [n] or [n, 1]: `images` and `labels`, or `x` and `y`, perhaps with `train`, `val` or
            `test` in the name, as Keras's and MedMNIST's files have them.

    Raises:
        UserError: damaged, or arrays of other names, shapes or types; arrays of Python objects are not opened.
    """
    trove = Trove()
    for split, (images, labels) in _pairs(path, _arrays(path)).items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            name = f"{split or 'image'}-{number:07d}.png"
            trove.pictures.append(Found(name, partial(_png, image), None, class_name(str(label)), split))
    if not trove.pictures:
        raise UserError(f"{path}: no image in it; give an array of one or more")
    return trove


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return {"images": map_npy(path)} if path.suffix.lower() == ".npy" else load_npz(path)
    except DAMAGE as error:
        why = reason(error) if isinstance(error, OSError | ValueError) else str(error)
        raise UserError(
            f"{path}: no arrays that can be read ({why}); save them with numpy.savez, without objects"
        ) from None


def _pairs(path: Path, arrays: dict[str, NDArray[Any]]) -> dict[str, tuple[NDArray[np.uint8], list[Any]]]:
    """Images [n, H, W(, 3)] and labels by split."""
    found: dict[str, dict[str, str]] = {}
    for key in arrays:
        words = key.lower().split("_")
        splits = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
        kinds = [kind for kind, names in (("images", IMAGES), ("labels", LABELS)) if {*words} & names]
        if len(kinds) != 1 or len(splits) > 1:
            raise UserError(
                f"{path}: what is array {key!r}? name them images and labels, or train_images, train_labels, …"
            )
        if other := found.setdefault("".join(splits), {}).get(kinds[0]):
            raise UserError(f"{path}: arrays {other!r} and {key!r} are both {kinds[0]} of one split; give one")
        found["".join(splits)][kinds[0]] = key
    pairs = {}
    for split, keys in found.items():
        if "images" not in keys:
            raise UserError(f"{path}: array {keys['labels']!r} belongs to no images; add them, or leave it out")
        images = _images(path, keys["images"], arrays[keys["images"]])
        pairs[split] = images, _labels(path, keys, arrays, len(images))
    return pairs


def _images(path: Path, key: str, array: NDArray[Any]) -> NDArray[np.uint8]:
    shape = list(array.shape)
    if array.dtype != np.uint8:
        raise UserError(f"{path}: array {key!r} holds {array.dtype}; give images as uint8, 0 to 255")
    if array.ndim == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if (array.ndim != 3 and (array.ndim != 4 or array.shape[3] != 3)) or 0 in array.shape[1:]:
        raise UserError(f"{path}: array {key!r} has the shape {shape}; give [n, H, W], [n, H, W, C] or [n, C, H, W]")
    return array


def _labels(path: Path, keys: dict[str, str], arrays: dict[str, NDArray[Any]], images: int) -> list[Any]:
    if "labels" not in keys:
        return [""] * images
    array = arrays[keys["labels"]]
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (images,) or array.dtype.kind not in "iuU":
        found = f"{array.dtype} {list(array.shape)}"
        raise UserError(
            f"{path}: array {keys['labels']!r} is {found}; give each of the {images} images a whole number or a name"
        )
    labels: list[Any] = array.tolist()
    return labels


def _png(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "png")
    return file.getvalue()
