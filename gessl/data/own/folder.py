"""A folder of pictures: by class, by split and class as torchvision's `ImageFolder` has them, or as they lie."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from gessl.data.own.found import SPLIT_WORDS, Found, Trove, class_name
from gessl.data.pictures import SUFFIXES
from gessl.errors import UserError
from gessl.files import read_bounded

MOST_BYTES = 1 << 30  # of a picture's file


def read_folder(folder: Path, *, labelled: bool = True) -> Trove:
    """The pictures below a folder, sorted by name.

    Folders directly below `folder` are classes; where all of them are called train, val, test or the like, those below
    them are. Pictures in `folder` itself, or in a split itself, have no label. Deeper folders change nothing.

    Args:
        folder: where to look. Links to files are followed, links to folders are not.
        labelled: whether folders are classes; else no picture has a label.

    Raises:
        UserError: no folder, no picture, or pictures both in class folders and next to them.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder that holds the pictures")
    trove = Trove()
    names = sorted(_files(folder, trove))
    tops = {PurePosixPath(name).parts[0] for name in names if "/" in name}
    splits = bool(tops) and all(top.lower() in SPLIT_WORDS for top in tops) and all("/" in name for name in names)
    for name in names:
        parts = PurePosixPath(name).parts
        split = SPLIT_WORDS[parts[0].lower()] if splits else ""
        inner = parts[splits:-1]
        label = class_name(inner[0]) if labelled and inner and split != "unlabelled" else ""
        place = folder / name
        trove.pictures.append(Found(name, partial(read_bounded, place, MOST_BYTES), place, label, split))
    _require_sense(folder, trove, labelled=labelled)
    deeper = sorted({PurePosixPath(picture.name).parent.as_posix() for picture in trove.pictures if _is_deep(picture)})
    if deeper:
        trove.notes.append(
            f"{len(deeper)} folders within class folders are no classes of their own, such as {deeper[0]}; where they"
            " should be, give a --table"
        )
    return trove


def _is_deep(picture: Found) -> bool:
    """Whether there are more folders above a picture with a label than its class and perhaps its split."""
    folders = PurePosixPath(picture.name).parts[:-1]
    return bool(picture.label) and len(folders) > 1 + (folders[0].lower() in SPLIT_WORDS and bool(picture.split))


def _files(folder: Path, trove: Trove) -> Iterator[str]:
    """Names of the pictures, as paths below `folder`; what else there is goes to the trove."""
    for root, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        trove.others += [f"{(Path(root) / name).relative_to(folder).as_posix()} (a link to a folder)" for name in links]
        for file in files:
            name = (Path(root) / file).relative_to(folder).as_posix()
            if file.startswith(".") or Path(file).suffix.lower() not in SUFFIXES:
                trove.others.append(name)
            elif not name.isprintable():
                trove.bad[ascii(name)[1:-1]] = "a name with signs that cannot be shown or are no UTF-8; rename it"
            else:
                yield name


def _refuse(error: OSError) -> None:
    raise error


def _require_sense(folder: Path, trove: Trove, *, labelled: bool) -> None:
    if not trove.pictures and not trove.bad:
        seen = f" (but {len(trove.others)} other files, such as {sorted(trove.others)[0]})" if trove.others else ""
        raise UserError(f"{folder}: no picture below it{seen}; give the folder that holds them")
    loose = [picture.name for picture in trove.pictures if not picture.label and picture.split != "unlabelled"]
    if labelled and loose and len(loose) < sum(picture.split != "unlabelled" for picture in trove.pictures):
        raise UserError(
            f"{folder}: {loose[0]} is in no class folder, while others are; move it into one, or give --no-labels to"
            " take no folder for a class"
        )
