"""What there is to know about pictures before they become a data set: each is read and decoded once."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from gessl.data.own.found import Found, Trove
from gessl.data.pictures import SUFFIXES, BadPictureError, decode
from gessl.data.progress_bar import ProgressBar
from gessl.data.threads import in_order
from gessl.files import reason

SHOWN = 5  # examples in a line


class Facts(NamedTuple):
    """Of one picture.

    Attributes:
        found: where it was found.
        sha256: of the file's bytes.
        bytes: size of the file.
        suffix: what the name of its copy ends in.
        pixels: SHA-256 of its size and of its pixels in RGB.
        size: height and width in pixels, turned as EXIF says.
        format, mode: as Pillow names them.
    """

    found: Found
    sha256: str
    bytes: int
    suffix: str
    pixels: str
    size: tuple[int, int]
    format: str
    mode: str


def examine(trove: Trove) -> list[Facts]:
    """Read and decode every picture, by as many threads as there are cores; those that are bad go to the trove."""
    found: list[Facts] = []
    with ProgressBar("read", len(trove.pictures), "pictures") as progress:
        for picture, facts in zip(trove.pictures, in_order(_facts, trove.pictures), strict=True):
            if isinstance(facts, str):
                trove.bad[picture.name] = facts
            else:
                found.append(facts)
            progress.add(1)
    return found


def _facts(found: Found) -> Facts | str:
    try:
        data = found.data()
        image, kind, mode = decode(data)
    except BadPictureError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({reason(error)})"
    suffix = PurePosixPath(found.name).suffix.lower()
    pixels = hashlib.sha256(f"{image.size}".encode())
    pixels.update(image.tobytes())
    return Facts(
        found, hashlib.sha256(data).hexdigest(), len(data), suffix if suffix in SUFFIXES else f".{kind.lower()}",
        pixels.hexdigest(), (image.height, image.width), kind, mode,
    )  # fmt: skip


def described(trove: Trove, pictures: Sequence[Facts]) -> list[str]:
    """What people should see before they go on, a line each."""
    sizes = sorted(facts.size for facts in pictures)
    areas = sorted((height * width, (height, width)) for height, width in sizes)
    smallest, middle, largest = (areas[place][1] for place in (0, len(areas) // 2, -1))
    lines = [
        f"{len(pictures)} pictures, {sum(facts.bytes for facts in pictures) / 2**20:.1f} MiB",
        f"  height x width: {_size(smallest)} to {_size(largest)}, median {_size(middle)}",
        f"  formats: {_counted(facts.format for facts in pictures)}",
        f"  modes: {_counted(facts.mode for facts in pictures)}",
    ]
    labels = Counter(facts.found.label for facts in pictures)
    unlabelled = labels.pop("", 0)
    if labels:
        lines.append(f"  {len(labels)} classes: {_counted(labels.elements())}")
    if unlabelled:
        lines.append(f"  {unlabelled} without a label: they are trained on, and never scored")
    lines += _alike([*labels])
    splits = Counter(facts.found.split for facts in pictures if facts.found.split)
    if splits:
        lines.append(f"  splits as given: {_counted(splits.elements())}")
    if groups := {facts.found.group for facts in pictures} - {""}:
        lines.append(f"  {len(groups)} groups")
    lines += _twins(pictures)
    if trove.others:
        lines.append(f"  {len(trove.others)} files that are no pictures stay where they are: {_some(trove.others)}")
    return lines


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _counted(values: object) -> str:
    counts = Counter(values).most_common()  # type: ignore[call-overload]
    rest = f" and {len(counts) - 2 * SHOWN} more" if len(counts) > 2 * SHOWN else ""
    return ", ".join(f"{name} {count}" for name, count in counts[: 2 * SHOWN]) + rest


def _some(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _alike(labels: Sequence[str]) -> list[str]:
    """Classes whose names differ by case alone."""
    folded = Counter(label.casefold() for label in labels)
    pairs = [label for label in sorted(labels) if folded[label.casefold()] > 1]
    return [f"  classes that differ by case alone stay apart: {_some(pairs)}"] if pairs else []


def _twins(pictures: Sequence[Facts]) -> list[str]:
    """Pictures with the pixels of another one, and those of them that have another label, too."""
    first: dict[str, Facts] = {}
    twins = [(facts, other) for facts in pictures if (other := first.setdefault(facts.pixels, facts)) is not facts]
    lines = []
    if twins:
        shown = _some([f"{facts.found.name} = {other.found.name}" for facts, other in twins])
        lines.append(f"  {len(twins)} have the pixels of another one, and never cross from train to test: {shown}")
    torn = [f"{a.found.name} ({a.found.label}), {b.found.name} ({b.found.label})" for a, b in twins
            if a.found.label != b.found.label]  # fmt: skip
    if torn:
        lines.append(f"  {len(torn)} of them have another label than their twin: {_some(torn)}")
    return lines
