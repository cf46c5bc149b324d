"""From a folder of photographs to scores: views are cut out of the originals, as torchvision would do it."""

import os
import random
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from torchvision.transforms import v2

from gessl.cli import main
from gessl.data.arrays import read_card, read_columns, read_index
from gessl.data.encoded import EncodedStore
from gessl.data.views import Loaded, ViewPolicy
from gessl.grid.cells import PlannedScience
from gessl.grid.experiment import Experiment
from gessl.nets import parallel
from gessl.nets.encoder import Encoder, load_encoder, save_encoder
from gessl.records.record import read_record
from gessl.records.step import Step
from gessl.tables.metrics import read_metrics
from gessl.tables.scores import read_scores
from gessl.training.run import STEPS_AHEAD, Run
from gessl.training.step import OuterGradient, outer_gradient
from tests.conftest import SMALL, copy_project
from tests.support.photos import encoded, photo
from tests.training.test_pretrain import pretrain_and_die, result_hashes

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # of torchvision
SUITE = {"tasks": 2, "way": 3, "train": 4, "val": 1, "test": 2, "finetune_steps": 2}
EVALUATION = ["knn/5nn-euclid", {"protocol": "sigma/finetuned", **SUITE}]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photographed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data set `photos` is prepared, and the folder `photos` next to it."""
    top, before, rng = tmp_path_factory.mktemp("photographed"), Path.cwd(), np.random.default_rng(0)
    project = copy_project(top / "project")
    for kind in ("ants", "bees", "beetles", "flies", "moths", "wasps"):
        folder = top / "photos" / kind
        folder.mkdir(parents=True)
        for n in range(15):
            picture = photo(rng, *rng.integers(30, 60, 2).tolist())
            (folder / f"{n}.jpg").write_bytes(encoded(picture))
    os.chdir(project)
    try:
        for words in (
            ["data", "add", "photos", "--folder", "../photos", "--size", "12"],
            ["fetch", "photos"],
            ["prepare", "photos"],
        ):
            assert main(words) == 0
    finally:
        os.chdir(before)
    return project


@pytest.fixture
def project(photographed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it; it is the working directory."""
    copy = shutil.copytree(photographed, tmp_path / "project")
    monkeypatch.chdir(copy)
    return copy


def cell_of(variant: str) -> PlannedScience:
    """Write an experiment on the photographs; its run of a variant."""
    recipe = {"train": {"steps": 16, "batch": 12, "warmup": 2, "lr": 0.003}}
    asked = {**SMALL, "datasets": ["photos"], "recipe": recipe, "seeds": [0], "evaluation": EVALUATION}
    Path("config/config.yaml").write_text(yaml.safe_dump(asked), encoding="utf-8")
    return next(cell for cell in Experiment.load(Path("config/config.yaml")).runs() if cell.variant == variant)


def test_a_folder_of_photographs_of_many_sizes_is_kept_as_it_is(project: Path, photographed: Path) -> None:
    card, index, columns = read_card("photos"), read_index("photos"), read_columns("photos")
    assert (card["store"], card["size"], card["images"]) == ("encoded", [12, 12], 90)
    for name, column in zip(index["id"], columns, strict=True):
        with Image.open(photographed.parent / "photos" / name) as found:
            assert found.size == (column["width"], column["height"])


def read_ahead(monkeypatch: pytest.MonkeyPatch, ahead: bool) -> None:
    """Whatever the number of cores here."""
    monkeypatch.setattr("gessl.training.run.can_read_ahead", lambda device: ahead)


@pytest.mark.parametrize("variant", ["base", "gessl"])
def test_a_killed_run_on_photographs_ends_in_the_same_bits(
    project: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In those of a run that reads nothing ahead, too."""
    run = cell_of(variant).id
    read_ahead(monkeypatch, False)
    assert main(["pretrain", run]) == 0
    whole, folder = result_hashes(run), Path("results/runs") / run
    shutil.rmtree(folder)
    read_ahead(monkeypatch, True)
    for at_step in sorted(random.Random(run).sample(range(2, 14), 2)):
        pretrain_and_die(run, at_step)
    assert main(["pretrain", run]) == 0
    assert result_hashes(run) == whole
    record = read_record(folder)
    assert record is not None and record["notes"]["resumed_from_step"] > 0
    assert set(record["notes"]["decoders"]) == {"pillow", "libjpeg_turbo", "torchvision"}
    assert {Path(entry["path"]).name for entry in record["inputs"]} == {
        "images.bin", "columns.npy", "index.csv", "card.json",
    }  # fmt: skip
    assert [row["step"] for row in read_metrics(folder / "metrics.jsonl")] == list(range(16))


def test_every_view_shows_a_box_of_its_original(project: Path, photographed: Path) -> None:
    """Of a run's first task, without the operations that change colours."""
    science = cell_of("base").science
    plain = tuple(ViewPolicy(crop_scale=policy.crop_scale, flip=0.5) for policy in science.policies)
    run = Run(replace(science, policies=plain), CPU)
    (batch,) = run.task(0, 0)
    assert batch.views.shape == (2, 12, 3, 12, 12)
    names = read_index("photos")["id"][run._order.positions(0)]
    for number, row in np.ndindex(2, 12):
        with Image.open(photographed.parent / "photos" / names[row]) as found:
            pixels = v2.functional.pil_to_tensor(found.convert("RGB"))
        box = batch.boxes[number, row].tolist()
        view = v2.functional.resized_crop(pixels, *box, [12, 12], antialias=True).float() / 255
        assert torch.equal(batch.views[number, row], view.flip(2) if batch.flips[number, row] else view)


@pytest.mark.parametrize("variant", ["base", "gessl"])
def test_reading_ahead_changes_no_bit(project: Path, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of threads that read, and of steps ahead; over an epoch's end, too."""
    science, before, found = cell_of(variant).science, torch.get_num_threads(), []
    for ahead, steps, threads in ((False, 0, 1), (True, 1, 1), (True, 2, 3), (True, 50, 2)):
        read_ahead(monkeypatch, ahead)
        monkeypatch.setattr("gessl.training.run.STEPS_AHEAD", steps)
        torch.set_num_threads(threads)
        run = Run(science, CPU)
        torch.set_num_threads(before)
        for _ in range(8):
            run.advance(None)
        found.append({**run.variables.params, **run.variables.buffers})
        run.close()
    assert run._order.batches < 8
    for other in found[1:]:
        assert all(torch.equal(other[name], tensor) for name, tensor in found[0].items())


def test_a_damaged_picture_ends_the_run_in_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same one whether it is met ahead or not, and no thread goes on."""
    cell, lines = cell_of("base"), []
    row = int(Run(cell.science, CPU)._order.positions(3)[5])  # of the fourth step
    read = EncodedStore._read

    def broken(store: EncodedStore, picture: int, use: Callable) -> object:
        if picture == row:
            raise store._blame(row, "is cut short")
        return read(store, picture, use)

    monkeypatch.setattr(EncodedStore, "_read", broken)
    for ahead in (False, True):
        read_ahead(monkeypatch, ahead)
        before = set(threading.enumerate())
        assert main(["pretrain", cell.id]) == 2
        left = {each.name for each in set(threading.enumerate()) - before}
        assert not any(name.startswith(("feed", "ThreadPool")) for name in left)
        lines.append(capsys.readouterr().err.splitlines()[-1])
    assert f"picture {row} (line {row + 2} of index.csv): is cut short; get its file again" in lines[0]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("variant", ["base", "gessl"])
def test_metrics_hold_the_share_of_a_step_that_waited(
    project: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that only loading and computing move: nine seconds for a mini-batch of each task, one for a step."""
    cell, clock = cell_of(variant), [0.0]
    read_ahead(monkeypatch, False)
    monkeypatch.setattr("gessl.training.run.moment", lambda device: clock[0])
    load, compute = EncodedStore.load, outer_gradient

    def slow(*arguments: Any) -> Loaded:
        clock[0] += 9
        return load(*arguments)

    def computed(*arguments: Any) -> OuterGradient:
        clock[0] += 1
        return compute(*arguments)

    monkeypatch.setattr(EncodedStore, "load", slow)
    monkeypatch.setattr("gessl.training.run.outer_gradient", computed)
    assert main(["pretrain", cell.id]) == 0
    rows = read_metrics(Path("results/runs") / cell.id / "metrics.jsonl")
    tasks = cell.science.gessl.tasks if cell.science.gessl else 1
    assert [row["data_wait"] for row in rows] == [pytest.approx(9 * tasks / (9 * tasks + 1), abs=1e-4)] * 16


class CountedReads:
    """`os.pread`, counted."""

    def __init__(self) -> None:
        self.read, self.calls = os.pread, 0

    def __call__(self, file: int, length: int, start: int) -> bytes:
        self.calls += 1
        return self.read(file, length, start)


def test_processes_read_their_own_pictures_only(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    science = cell_of("base").science
    run = Run(science, CPU)
    (whole,) = run.task(0, 0)
    joined = torch.zeros_like(whole.views)
    for rank in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(parallel, "processes", lambda: 3)
            patch.setattr("gessl.training.run.processes", lambda: 3)
            patch.setattr(parallel, "rank", lambda rank=rank: rank)
            read = CountedReads()
            patch.setattr(os, "pread", read)
            (part,) = run.task(0, 0)
            assert read.calls == 4
            read_ahead(patch, True)
            fed = Run(science, CPU)
            fed._feed.take()
            for begun in fed._feed._begun:
                begun.result()
            fed.close()
            assert read.calls == 4 * (2 + STEPS_AHEAD)
        joined += part.views.nan_to_num(0.0)
    assert torch.equal(joined, whole.views)


@pytest.mark.parametrize("size", [[12, 12], [9, 9]])
def test_photographs_are_scored_resized_and_cut_to_their_centre(
    project: Path, photographed: Path, size: list[int]
) -> None:
    """By an encoder of their own size, and of another data set's: the same neighbours as scikit-learn finds."""
    run = cell_of("base").id
    assert main(["pretrain", run]) == 0
    encoder = load_encoder(Path("results/runs") / run / "encoder.safetensors")
    if size != [12, 12]:
        encoder = resized_encoder(run, size)
    for words in (["tasks", "photos", "0"], ["evaluate", run]):
        assert main(words) == 0
    folder = Path("results/scores") / run / "photos"
    assert {name.name for name in folder.iterdir() if name.is_dir()} == {"knn__5nn_euclid", "sigma__finetuned"}
    index, view = read_index("photos"), v2.Compose([v2.Resize(size[0]), v2.CenterCrop(size), v2.PILToTensor()])
    opened = [Image.open(photographed.parent / "photos" / name).convert("RGB") for name in index["id"]]
    with torch.inference_mode():
        features = encoder(torch.stack([view(picture) for picture in opened]).float() / 255).numpy()
    train, test = (index["split"] == split for split in ("train", "test"))
    neighbours = KNeighborsClassifier(5).fit(features[train], index["label"][train])
    (row,) = read_scores(folder / "knn__5nn_euclid")
    assert float(row["value"]) == pytest.approx(100 * neighbours.score(features[test], index["label"][test]))


def resized_encoder(run: str, size: list[int]) -> Encoder:
    """Have the run's encoder take images of another size, as if it was trained on another data set."""
    path = Path("results/runs") / run / "encoder.safetensors"
    encoder = load_encoder(path)
    encoder.size = (size[0], size[1])
    with Step("pretrain", run, path.parent, inputs=[], config={}) as step:
        save_encoder(encoder, step.path(path.name))
        step.path("config.json").write_bytes((path.parent / "config.json").read_bytes())
    return encoder
