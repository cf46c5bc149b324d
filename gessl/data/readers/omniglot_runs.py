"""The twenty published runs of one-shot classification with Omniglot's characters, in one zip.

https://github.com/brendenlake/omniglot, `python/one-shot-classification/all_runs.zip`: in `run01` to `run20` one image
of each of twenty characters of an alphabet, `training/class01.png` and on, another of each, `test/item01.png` and on,
and `class_labels.txt` with a line for each of those: `run01/test/item01.png run01/training/class08.png`.
"""

from pathlib import Path, PurePosixPath

from gessl.data.readers._archived import Place, archived, names_like, parsing, read_lists
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the zip; a class is `<run>/<training image>`, in the order of these names, and a group is a run.

    Raises:
        UserError: a damaged or another archive; of a picture it shows while the chunks are read.
    """
    (path,) = raw_files(entry, folder, "all_runs.zip")
    lists = [match[0] for match in names_like(path, r"run\d+/class_labels\.txt")]
    with parsing(path):
        pairs = [line.split() for lines in read_lists(path, *lists) for line in lines]
        answers = dict(pairs)
        names = sorted({*answers.values()})
        labels = {name: label for label, name in enumerate(names)}
        classes = tuple(str(PurePosixPath(name).parent.parent / PurePosixPath(name).stem) for name in names)
        places = {name: Place("train", labels[name], name.split("/")[0]) for name in names}
        for test, training in answers.items():
            run = test.split("/")[0]
            if not test.startswith(f"{run}/test/") or not training.startswith(f"{run}/training/"):
                raise ValueError(f"{test!a} is of another run than its answer, or one of them is no such image")
            places[test] = Place("test", labels[training], run)
        if len(answers) < len(pairs):
            raise ValueError("a test image has two answers")
    return archived(entry, folder, classes, [path], places)
