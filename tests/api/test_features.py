"""`gessl.load`, `gessl.features` and `gessl embed`: the pipeline's features, and modules that stay as they were."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gessl
from gessl.cli import main
from gessl.data.encoded import EncodedStore
from gessl.data.stores import ArrayStore
from gessl.errors import UserError
from gessl.layout import run_dir
from gessl.nets.encoder import Encoder, load_encoder, save_encoder
from gessl.protocols.embed import embed, fitted
from gessl.records.step import Step
from tests.api.toy import by_hand, make_images, network, snapshot
from tests.support.photos import photos

CPU = torch.device("cpu")
RUN = "toy-simclr-s0-00000000"


def write_run(channels: int = 1, size: tuple[int, int] = (8, 8), *, cropped: bool = False) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder("small-conv", [0.4] * channels, [0.3] * channels, size)
        encoder(torch.rand(32, channels, *size))  # statistics of batch normalisation that are no longer 0 and 1
    encoder.cropped = cropped
    with Step("pretrain", RUN, run_dir(RUN), inputs=[], config={}) as step:
        save_encoder(encoder, step.path("encoder.safetensors"))
    return run_dir(RUN)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_gives_the_bits_of_its_own_encoder(here: Path) -> None:
    folder = write_run()
    images = make_images()
    expected = embed(load_encoder(folder / "encoder.safetensors"), images, batch=64, device=CPU)
    for run in (RUN, folder, str(folder), folder.absolute()):
        encoder = gessl.load(run)
        assert not any(part.training for part in encoder.modules())
        assert torch.equal(gessl.features(encoder, images, batch=64), expected)


def test_images_of_another_size_are_fitted_as_in_the_pipeline(here: Path) -> None:
    for cropped in (False, True):
        encoder = load_encoder(write_run(3, (16, 16), cropped=cropped) / "encoder.safetensors")
        images = make_images()  # grey, 8 x 8
        store = fitted(ArrayStore(images), channels=3, size=(16, 16), cropped=cropped, where="x")
        expected = embed(encoder, store, batch=64, device=CPU)
        assert torch.equal(gessl.features(encoder, images, batch=64), expected)


@pytest.mark.parametrize("kind", ["numpy", "torch", "floats", "float array", "double"])
def test_a_module_gives_what_it_gives_image_by_image_and_stays_as_it_was(kind: str) -> None:
    module, images = network(), make_images()
    floats = torch.from_numpy(images).float() / 255
    given: Any = {
        "numpy": images, "torch": torch.from_numpy(images), "floats": floats, "float array": floats.numpy(),
        "double": floats.double(),
    }[kind]  # fmt: skip
    before = snapshot(module)
    found = gessl.features(module, given, batch=50)
    assert (found.dtype, found.device, found.requires_grad) == (torch.float32, CPU, False)
    assert torch.allclose(found, by_hand(module, images), atol=1e-6)
    assert snapshot(module) == before
    loss = module(floats).sum() + found.sum()  # what it gave is no inference tensor
    loss.backward()


def test_functions_and_methods_are_encoders_too() -> None:
    module, images = network(), make_images()
    before = snapshot(module)
    expected = by_hand(module, images)
    assert torch.allclose(gessl.features(module.forward, images), expected, atol=1e-6)  # the module is switched to eval
    assert snapshot(module) == before
    found = gessl.features(lambda pixels: pixels.mean((2, 3)), images)
    assert torch.allclose(found[:, 0], torch.from_numpy(images.mean((1, 2, 3))).float() / 255, atol=1e-6)


class Fails(nn.Module):
    def __init__(self, gives: Any) -> None:
        super().__init__()
        self.norm, self.gives = nn.BatchNorm2d(1), gives

    def forward(self, images: Tensor) -> Any:
        self.norm(images)
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives(images)


@pytest.mark.parametrize(
    ("gives", "line"),
    [
        (lambda images: images, r"encoder: gives \[240, 1, 8, 8\] for 240 images; .*take the mean over the last two"),
        (lambda images: images.mean(), r"encoder: gives \[\] for 240 images"),
        (lambda images: images[:3].flatten(1), r"encoder: gives \[3, 64\] for 240 images"),
        (lambda images: images[:, 0, :, 0] * float("nan"), "240 of 240 images are not finite, first of image 0"),
        (lambda images: (images.flatten(1), 0), "encoder: gives an object of type tuple"),
        (lambda images: 1 / (images.flatten(1)[:, :1] - images[7, 0, 0, 0]), "not finite, first of image 7"),
    ],
)
def test_what_is_no_matrix_of_finite_numbers_is_refused(gives: Any, line: str) -> None:
    module = Fails(gives).train()
    before = snapshot(module)
    with pytest.raises(UserError, match=line):
        gessl.features(module, make_images())
    assert snapshot(module) == before


def test_an_error_of_the_module_leaves_it_in_train_mode() -> None:
    module = Fails(ZeroDivisionError()).train()
    before = snapshot(module)
    with pytest.raises(ZeroDivisionError):
        gessl.features(module, make_images())
    assert snapshot(module) == before


@pytest.mark.parametrize(
    ("images", "line"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"images: their shape is \[3, 8, 8\]; give one or more images as"),
        (np.zeros((0, 1, 8, 8), np.uint8), "images: their shape is"),
        (np.zeros((3, 8, 8, 3), np.uint8), r"has channels last; give \[n, C, H, W\]"),
        (np.zeros((3, 1, 8, 8), np.int64), "images: hold int64; give uint8"),
        (np.zeros((3, 1, 8, 8), np.complex64), "images: hold complex64"),
        (torch.zeros(3, 1, 8, 8, dtype=torch.int32), "images: hold torch.int32"),
        ("nowhere", "nowhere: no such folder"),
    ],
)
def test_what_is_no_image_is_refused(images: Any, line: str) -> None:
    with pytest.raises(UserError, match=line):
        gessl.features(network(), images)


@pytest.mark.parametrize("encoder", [None, 3, nn.Linear, "net"])
def test_what_is_no_encoder_is_refused(encoder: Any) -> None:
    with pytest.raises(UserError, match=r"encoder: got an object of type .*; give a torch module or a function"):
        gessl.features(encoder, make_images())


def test_batches_have_an_image_or_more() -> None:
    with pytest.raises(UserError, match="batch: must be 1 image or more, got 0"):
        gessl.features(network(), make_images(), batch=0)


def test_floats_for_a_run_are_scaled_and_sized(here: Path) -> None:
    write_run()
    encoder, images = gessl.load(RUN), make_images()
    assert torch.equal(gessl.features(encoder, images / np.float32(255)), gessl.features(encoder, images))
    with pytest.raises(UserError, match=r"images: from 0 to \d+, but the run's encoder takes floats in \[0, 1\]"):
        gessl.features(encoder, images.astype(np.float32))
    with pytest.raises(UserError, match=r"images: \[1, 9, 8\] as floats, but the run's encoder takes \[1, 8, 8\]"):
        gessl.features(encoder, torch.zeros(2, 1, 9, 8))


def test_no_run_is_one_line(here: Path) -> None:
    with pytest.raises(UserError, match="nobody: no such run here; give an id"):
        gessl.load("nobody")
    run_dir("half").mkdir(parents=True)
    with pytest.raises(UserError, match="results/runs/half: no finished run; train it"):
        gessl.load("half")


@pytest.fixture
def folder(here: Path) -> Path:
    for name, data in photos(4).items():
        (here / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "photos" / name).write_bytes(data)
    (here / "photos" / "notes.txt").write_text("no picture", encoding="utf-8")
    return here / "photos"


@pytest.mark.parametrize("cropped", [False, True])
def test_a_folder_is_read_as_the_pipeline_reads_photographs(folder: Path, *, cropped: bool) -> None:
    encoder = gessl.load(write_run(3, (24, 24), cropped=cropped))
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.suffix != ".txt")
    blob = b"".join((folder / name).read_bytes() for name in names)
    (folder.parent / "images.bin").write_bytes(blob)
    lengths = [(folder / name).stat().st_size for name in names]
    columns = np.zeros(len(names), [("offset", np.int64), ("bytes", np.int64)])
    columns["bytes"], columns["offset"] = lengths, np.cumsum([0, *lengths[:-1]])
    store = EncodedStore(folder.parent / "images.bin", columns, (20, 20), 3, lambda row, why: UserError(why))
    given = fitted(store, channels=3, size=(24, 24), cropped=cropped, where="photos")
    expected = embed(encoder, given, batch=3, device=CPU)
    for path in (folder, str(folder)):
        assert torch.equal(gessl.features(encoder, path, batch=3), expected)


def test_an_encoder_of_ones_own_needs_a_size(folder: Path) -> None:
    def sizes(images: Tensor) -> Tensor:
        return torch.tensor([[*images.shape[1:]]] * len(images)).float()

    with pytest.raises(UserError, match="pictures of any size; give size=, the side in pixels"):
        gessl.features(sizes, folder)
    assert gessl.features(sizes, folder, size=20).unique(dim=0).tolist() == [[3, 20, 20]]
    for size in (0, "20", 20.0, True):
        with pytest.raises(UserError, match=f"size: must be a whole number, at least 1, got {size!r}"):
            gessl.features(sizes, folder, size=size)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="size: 9, but the run's encoder takes 24x24; leave it out"):
        gessl.features(gessl.load(write_run(3, (24, 24))), folder, size=9)


@pytest.mark.parametrize("channels", [1, 3])
def test_embed_writes_what_features_gives(channels: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(channels, (24, 24))
    expected = gessl.features(gessl.load(run), folder).numpy()
    assert main(["embed", RUN, str(folder), "--out", "out/features.npy"]) == 0
    assert "features.npy: 8 pictures, 64 features each" in capsys.readouterr().out
    assert np.array_equal(np.load("out/features.npy"), expected)
    assert main(["embed", str(run), str(folder), "--out", "features.csv"]) == 0
    with open("features.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["picture", *(f"f{place}" for place in range(64))]
    assert [row[0] for row in rows] == sorted(row[0] for row in rows) and rows[0][0].startswith("ants/")
    assert np.array_equal(np.array([row[1:] for row in rows], np.float32), expected)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([RUN, "photos", "--out", "x.txt"], "gessl: x.txt: no .npy or .csv file; end its name so"),
        ([RUN, "nowhere"], "gessl: nowhere: no such folder"),
        ([RUN, "empty"], "gessl: empty: no picture below it"),
        (["nobody", "photos"], "gessl: nobody: no such run here"),
        ([RUN, "broken"], "gessl: broken/x.png: not a picture in a format that is read"),
    ],
)
def test_embed_refuses_in_one_line(
    words: list[str], line: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(3, (24, 24))
    for name in ("empty", "broken"):
        Path(name).mkdir()
    Path("broken/x.png").write_text("no picture", encoding="utf-8")
    assert main(["embed", *words]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(line)
    assert not Path("features.npy").exists()
