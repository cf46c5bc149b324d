"""All tables of the paper at fixture size: the real configuration with smaller numbers, and small published data.

    python -m tests.support.paper_tiny FOLDER
    cd FOLDER && snakemake --profile workflow/profiles/local --configfile config/paper.yaml

Nothing is written a second time: every file of `config/` is the real one, in which numbers are cut to `MOST` and
`SHOTS` by their keys, networks are `SMALLER`, no GPU is asked for, and lists are cut short. So a table that is added is
there, too.
"""

import contextlib
import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from gessl.data.pin import write_pin
from gessl.documents import read_document
from gessl.grid.values import load_protocol
from gessl.protocols import protocol_names
from tests.conftest import ROOT, copy_project
from tests.support.small_data import Published, published

MOST: dict[str, float] = {
    # training
    "batch": 8, "warmup": 1, "checkpoint_every": 100, "threads": 1, "gpu": 0, "mem_mb": 1000, "target_steps": 1,
    # networks of methods
    "hidden": 16, "dim": 8, "queue": 16, "prototypes": 8, "width": 16, "depth": 1, "units": 16, "predictor": 16,
    "bottleneck": 4, "negatives": 16, "masks": 2, "layers": 1,
    # protocols
    "epochs": 4, "episodes": 4, "queries": 2, "draws": 2, "tasks": 2, "way": 3, "train": 3, "val": 1, "test": 3,
    "penalties": 3, "neighbours": 5, "crop": 32, "resize": 36,
}  # fmt: skip
"""Most that a number may be, by its key, wherever it stands."""
SHOTS = {1: 1, 5: 2, 20: 3, 50: 4}
"""What stands for a number of labelled images of a class."""
SMALLER = {
    "resnet18-cifar": "small-conv",
    "resnet18-pool": "small-conv",
    "resnet50": "small-conv",
    "vit-small": "small-vit",
}
HERE = {"device": "cpu", "compile": False}
SIDE = 32
"""Most pixels of a side, but where a format has another one."""
KEPT = ("simclr", "mae", "cmc")
"""Methods that stay, if the file has them; of its others none."""
LEFT_OUT = ("transfer-many-shot",)
"""Tables of `config/paper` that are not there: of their data sets there are no small ones yet."""


def smaller(tree: Any, key: str = "") -> Any:
    """A document with smaller numbers; `key` is what it stands under."""
    if isinstance(tree, dict):
        return {name: smaller(value, name) for name, value in tree.items()}
    if key == "task":
        return re.sub(r"w(\d+)s", lambda found: f"w{SHOTS[int(found[1])]}s", tree)
    if key == "shots":
        return [SHOTS[shot] for shot in tree]
    if key == "steps" and not isinstance(tree, list):
        return min(6, max(3, tree // 90))  # equal where the real ones are equal, and more where they are more
    if key == "before_end":
        return list(range(len(tree), 0, -1))
    if key == "seeds":
        return tree[:2]
    if key == "size" and isinstance(tree, list):
        return [min(side, SIDE) for side in tree]
    if isinstance(tree, list):
        return [smaller(value) for value in tree]
    if key == "backbone":
        return SMALLER.get(tree, tree)
    if isinstance(tree, int | float) and not isinstance(tree, bool) and key in MOST:
        return min(tree, MOST[key])
    return HERE.get(key, tree)


def shorter(tree: dict[str, Any]) -> dict[str, Any]:
    """An experiment (or recipe) with one method, at most two variants next to `base`, and two values on each axis."""
    cut = dict(tree)
    if "methods" in tree:
        cut["methods"] = dict([(name, tree["methods"][name]) for name in KEPT if name in tree["methods"]][:1])
    if "variants" in tree:
        # nothing is timed at this size
        timed = {name for name, one in tree["variants"].items() if "seconds_of" in (one.get("train") or {})}
        others = [name for name in tree["variants"] if name not in {"base", *timed}]
        kept = {"base", *(["gessl"] if "axes" in tree else others[:2])}
        cut["variants"] = {name: value for name, value in tree["variants"].items() if name in kept}
        pairs = tree.get("comparisons", ())
        cut["comparisons"] = [pair for pair in pairs if {pair["treatment"], pair["control"]} <= kept]
    if "axes" in tree:
        cut["axes"] = {key: values[:2] for key, values in tree["axes"].items()}
    return cut


def score_ids() -> list[str]:
    """The ids of all scores of all protocols, as they are configured in the working directory."""
    return [score for name in protocol_names() for score in load_protocol(name).cards()]


def relabelled(tree: dict[str, Any], ids: dict[str, str]) -> dict[str, Any]:
    """A document whose table names the ids that scores have at this size."""
    if not tree.get("table"):
        return tree
    columns = [{**each, "protocol": ids.get(each["protocol"], each["protocol"])} for each in tree["table"]["columns"]]
    return {**tree, "table": {**tree["table"], "columns": columns}}


def make(folder: Path) -> Path:
    """The project at fixture size, in a new folder."""
    with contextlib.chdir(ROOT):
        real = score_ids()
    project = copy_project(folder)
    for name in LEFT_OUT:
        (project / f"config/paper/{name}.yaml").unlink()
    for kind in ("paper", "recipes", "methods", "protocols"):
        for path in (project / "config" / kind).glob("*.yaml"):
            tree = _read(path)
            _write(path, smaller(shorter(tree) if kind in ("paper", "recipes") else tree))
    with contextlib.chdir(project):
        ids = dict(zip(real, score_ids(), strict=True))
    for kind in ("paper", "recipes"):
        for path in (project / "config" / kind).glob("*.yaml"):
            _write(path, relabelled(_read(path), ids))
    for pinned in (ROOT / "data/raw").glob("glyphs*.dvc"):
        (project / "data/raw" / pinned.name).write_bytes(pinned.read_bytes())
    with contextlib.chdir(project):
        for name, data in published().items():
            _place(name, data)
        for path in Path("config/encoders").glob("*.yaml"):
            _place_encoder(path)
    return project


def _read(path: Path) -> Any:
    return read_document(path.resolve()).tree


def _write(path: Path, tree: Any) -> None:
    path.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _place(name: str, data: Published) -> None:
    """Write and pin a small data set (one that comes with a package: cut its numbers only)."""
    path = Path("config/datasets") / f"{name}.yaml"
    entry = _read(path)
    entry |= {"parts": data.parts, "classes": data.classes}
    if not data.fixed:
        entry["size"] = [min(side, SIDE) for side in entry["size"]]
    if data.files:
        assert list(data.files) == [file["name"] for file in entry["files"]]
        for file in entry["files"]:
            file |= dict.fromkeys(file.keys() & {"bytes", "sha256", "md5"})
        folder = Path("data/raw") / name
        folder.mkdir(parents=True)
        for file, content in data.files.items():
            (folder / file).write_bytes(content)
        write_pin(name)
    _write(path, entry)


def _place_encoder(path: Path) -> None:
    """An encoder from elsewhere: ResNet-18 with random weights in place of ResNet-50."""
    import torch
    from torchvision.models import resnet18

    torch.manual_seed(int(hashlib.sha256(path.stem.encode()).hexdigest()[:8], 16))
    text = path.read_text(encoding="utf-8").replace("name: resnet50", "name: resnet18")
    entry = yaml.safe_load(text)
    network = resnet18()
    weights = network.state_dict()
    if entry["model"]["kind"] != "torchvision":
        weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    file = Path(entry["file"])
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(weights, file)
    entry |= {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": [SIDE, SIDE]}
    _write(path, entry)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
