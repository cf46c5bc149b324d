"""Every data set of the paper's tables, small: a few images of a few classes in the files of the published one."""

import csv
import io
import json
from dataclasses import dataclass, field

from tests.data.fixtures import (
    cars_classes,
    chestx,
    cifar,
    crop_diseases,
    cub200_classes,
    eurosat,
    ilsvrc,
    isic2018,
    omniglot,
    places365_classes,
    plantae,
    tiny_imagenet,
)
from tests.data.fixtures.build import Small, packed
from tests.data.fixtures.packing import picture, tar

IMAGES = 8
"""Of each class that few-shot tasks are drawn from: four shots, two queries, and two more."""


@dataclass(frozen=True)
class Published:
    """The bytes of its files (none if they come with a package), and what its entry says of them.

    Attributes:
        parts, classes: numbers of images and of classes.
        files: by their names, in the entry's order.
        fixed: whether the format has images of one size only.
    """

    parts: dict[str, int]
    classes: int
    files: dict[str, bytes] = field(default_factory=dict)
    fixed: bool = False


def published() -> dict[str, Published]:
    """All of them, by name."""
    twenty = tuple(f"{number:03}.Bird" for number in range(20))  # every fourth class is for tests
    cars = tuple(f"Car {number:02}" for number in range(20))
    scenes = tuple(f"scene-{number:02}" for number in range(20))
    plants = tuple(f"{5000 + number}" for number in range(20))
    six = tuple(f"Kind{number}" for number in range(6))
    lesions = 6 * IMAGES * 2
    found = tuple((str(number + 1), chestx.CLASSES[number % 7]) for number in range(7 * IMAGES * 2))
    smalls = [
        tiny_imagenet.small(images=20),
        omniglot.small(_characters(), drawers=5),
        cub200_classes.small(twenty, IMAGES + 1),
        cars_classes.small(cars, IMAGES),
        places365_classes.small(scenes, IMAGES + 1),
        plantae.small(plants, IMAGES),
        crop_diseases.small(six, 2 * IMAGES),
        eurosat.small(six, 6 * IMAGES),
        isic2018.small(six, tuple(n % 6 for n in range(lesions)), tuple(range(1, lesions + 1))),
        chestx.small(found),
    ]
    return (
        {small.like: _of(small) for small in smalls}
        | _imagenets()
        | {
            "cifar10": _cifar(10, 8),
            "cifar100": _cifar(100, 8),
            "cifar-fs": _cifar_fs(),
            "mini-imagenet": _mini_imagenet(),
            "stl10": Published(
                {"train": 80, "test": 80, "unlabelled": 40},
                10,
                {"stl10_binary.tar.gz": cifar.archive(cifar.stl10_members(80, 80, 40))},
                fixed=True,
            ),
            "glyphs-ten": Published({"all": 400}, 10),
            "glyphs-shift": Published({"all": 4000}, 500),
        }
    )


def _of(small: Small) -> Published:
    files = {name: packed(name, content) for name, content in small.files.items()}
    return Published(small.parts, len(small.classes), files)


def _cifar(classes: int, each: int) -> Published:
    """CIFAR-10, or CIFAR-100, with that number of images of each class in each file."""
    parts = {"train": (5 if classes == 10 else 1) * classes * each, "test": classes * each}
    return Published(
        parts, classes, {f"cifar-{classes}-python.tar.gz": cifar.archive(cifar.cifar_members(classes, each))}
    )


def _cifar_fs() -> Published:
    labels = {"train": range(64), "val": range(64, 80), "test": range(80, 100)}
    files = {"cifar-100-python.tar.gz": cifar.archive(cifar.cifar_members(100, 4, seed=1))}
    for part, some in labels.items():
        files[f"{part}.json"] = json.dumps([["a coarse one", f"class {label}"] for label in some]).encode()
    return Published({part: 8 * len(some) for part, some in labels.items()}, 100, files)


def _imagenets() -> dict[str, Published]:
    """ImageNet, some of its classes, and all of it with few labels."""
    each, tests = 50, len(ilsvrc.TRUTH)
    files, names = ilsvrc.ilsvrc(each), ilsvrc.train_names(each)
    some = sorted(ilsvrc.WNIDS)[:3]
    shown = sum(ilsvrc.WNIDS[number - 1] in some for number in ilsvrc.TRUTH)
    found = {
        "imagenet": Published({"train": 4 * each, "test": tests}, 4, files),
        "imagenet-100": Published(
            {"train": 3 * each, "test": shown}, 3, files | {"imagenet100.txt": "\n".join(some).encode()}
        ),
    }
    each = 200  # so that 1 % is two images of each class
    files, names = ilsvrc.ilsvrc(each), ilsvrc.train_names(each)
    for share, count in ((1, 2), (10, 20)):
        listed = [name for some in names.values() for name in some[:count]]
        parts = {"train": 4 * count, "test": tests, "unlabelled": 4 * (each - count)}
        few = {f"{share}percent.txt": "".join(f"{name}\n" for name in listed).encode()}
        found[f"imagenet-{share}pct"] = Published(parts, 4, files | few)
    return found


def _mini_imagenet() -> Published:
    wnids = [f"n{10_000_000 + number}" for number in range(16)]
    classes = {
        f"{wnid}.tar": tar({f"{wnid}_{n}.JPEG": picture(100 * place + n, (36, 33)) for n in range(1, IMAGES + 1)})
        for place, wnid in enumerate(wnids)
    }
    files = {"ILSVRC2012_img_train.tar": tar(classes)}
    shared = {"train": wnids[:8], "val": wnids[8:10], "test": wnids[10:]}
    for part, some in shared.items():
        text = io.StringIO()
        rows = [(f"{wnid}{place:08d}.jpg", wnid) for wnid in some for place in range(1, IMAGES + 1)]
        csv.writer(text, lineterminator="\n").writerows([("filename", "label"), *rows])
        files[f"{part}.csv"] = text.getvalue().encode()
    return Published({part: IMAGES * len(some) for part, some in shared.items()}, len(wnids), files)


def _characters() -> omniglot.Split:
    """Characters: 22 to be tested, as tasks have up to 20 ways."""

    def some(count: int) -> list[str]:
        return [f"character{number:02}" for number in range(1, count + 1)]

    return {
        "train": {"background": {"Latin": some(6)}, "evaluation": {}},
        "val": {"background": {"Greek": some(2)}, "evaluation": {}},
        "test": {"background": {}, "evaluation": {"Avesta": some(12), "Tengwar": some(10)}},
    }
