"""`gessl.sigma` against loops in float64 and against the protocols that reports use."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.optimize import minimize_scalar
from torch import nn

import gessl
from gessl.api.sigma import FINETUNED, Measured
from gessl.errors import UserError
from gessl.protocols.pools import pools_of
from tests.api.toy import LABELS, by_hand, make_images, network, snapshot
from tests.conftest import ROOT
from tests.support.scored import protocol, scored

FEATURES = np.random.default_rng(1).normal(size=(240, 7)) + np.eye(6, 7)[LABELS]
SMALL: dict[str, Any] = {"tasks": 4, "ways": 4, "train": 6, "val": 5, "test": 8}


def unit(x: np.ndarray) -> np.ndarray:
    return x / math.sqrt(sum(float(v) ** 2 for v in x))


def scores_of(features: np.ndarray, measured: Measured, task: int, positions: np.ndarray) -> list[list[float]]:
    """Log softmax of cosine / 0.5 with the classes' mean directions, a row for each image."""
    anchors = [unit(np.mean([unit(features[i]) for i in row], axis=0)) for row in measured.suite.train[task]]
    rows = []
    for i in positions.flatten():
        logits = [float(unit(features[i]) @ anchor) / 0.5 for anchor in anchors]
        total = math.log(sum(math.exp(logit) for logit in logits))
        rows.append([logit - total for logit in logits])
    return rows


def softened(rows: list[list[float]], temperature: float) -> list[list[float]]:
    divided = [[value / temperature for value in row] for row in rows]
    return [[value - math.log(sum(math.exp(v) for v in row)) for value in row] for row in divided]


def best_temperature(features: np.ndarray, measured: Measured) -> float:
    """Of the cross-entropy on the val images of all tasks, with labels as if each class had been seen once more."""
    rows = [
        (row, i // measured.suite.val.shape[2])
        for task in range(len(measured.suite.classes))
        for i, row in enumerate(scores_of(features, measured, task, measured.suite.val[task]))
    ]
    n, ways = len(rows), len(rows[0][0])

    def loss(log_temperature: float) -> float:
        total = 0.0
        for row, label in rows:
            (log_p,) = softened([row], math.exp(log_temperature))
            total -= sum(((n * (c == label) + 1) / (n + ways)) * log_p[c] for c in range(ways))
        return total / n

    return math.exp(minimize_scalar(loss, bounds=(math.log(0.01), math.log(100)), method="bounded").x)


def per_task(
    measured: Measured, features: np.ndarray, other: np.ndarray | None = None, eps: float = 0.1
) -> list[float]:
    """σ from its formula: the mean of KL(model ‖ reference) over a task's test images."""
    found = []
    calibration = measured.calibration or (1.0, 1.0)
    for task, positions in enumerate(measured.suite.test):
        model = softened(scores_of(features, measured, task, positions), calibration[0])
        ways = len(model[0])
        if other is None:
            labels = [i // positions.shape[1] for i in range(len(model))]
            reference = [[math.log((1 - eps) * (c == y) + eps / ways) for c in range(ways)] for y in labels]
        else:
            reference = softened(scores_of(other, measured, task, positions), calibration[1] or 1.0)
        pairs = zip(model, reference, strict=True)
        terms = [sum(math.exp(p) * (p - q) for p, q in zip(*rows, strict=True)) for rows in pairs]
        found.append(sum(terms) / len(terms))
    return found


@pytest.mark.parametrize("calibrate", [True, False])
def test_against_labels_by_loops(calibrate: bool) -> None:
    found = gessl.sigma(FEATURES, None, LABELS, calibrate=calibrate, eps=0.2, seed=3, **SMALL)
    assert found.per_task == pytest.approx(per_task(found, FEATURES, eps=0.2), rel=1e-9)
    assert found.mean == pytest.approx(np.mean(found.per_task))
    assert found.sum == pytest.approx(found.mean * 4 * 4 * 8)
    assert found.lo is not None and found.hi is not None and found.lo < found.mean < found.hi
    assert found.name == "sigma/onehot-eps0.2-kl-tau0.5" + "-cal" * calibrate
    if calibrate:
        assert found.calibration == (pytest.approx(best_temperature(FEATURES, found), rel=1e-3), None)
    else:
        assert found.calibration is None


@pytest.mark.parametrize("calibrate", [True, False])
def test_against_another_model_by_loops(calibrate: bool) -> None:
    other = FEATURES[:, ::-1] + 1.0
    found = gessl.sigma(FEATURES, None, LABELS, against=other.copy(), calibrate=calibrate, **SMALL)
    assert found.per_task == pytest.approx(per_task(found, FEATURES, other), rel=1e-9)
    assert found.name == "sigma/other-model-kl-tau0.5" + "-cal" * calibrate
    if calibrate:
        expected = [best_temperature(each, found) for each in (FEATURES, other)]
        assert found.calibration == (pytest.approx(expected[0], rel=1e-3), pytest.approx(expected[1], rel=1e-3))
    assert gessl.sigma(FEATURES, None, LABELS, against=FEATURES, **SMALL).mean == 0


def test_the_tasks_are_apart_and_keyed_by_the_seed() -> None:
    one, same, other = (gessl.sigma(FEATURES, None, LABELS, seed=seed, **SMALL) for seed in (0, 0, 1))
    for name in ("train", "val", "test"):
        assert np.array_equal(getattr(one.suite, name), getattr(same.suite, name))
    assert not np.array_equal(one.suite.test, other.suite.test)
    for task, classes in enumerate(one.suite.classes):
        rows = np.concatenate([part[task] for part in one.suite.splits], axis=1)
        assert len(np.unique(rows)) == rows.size
        assert np.array_equal(LABELS[rows], np.repeat(classes[:, None], rows.shape[1], axis=1))


def test_labels_and_finetuned_are_the_protocols_own_numbers() -> None:
    """The rows that the pipeline would write, for the same features and tasks."""
    module, images = network(), make_images()
    values = {"tasks": 3, "way": 4, "train": 6, "val": 5, "test": 8}
    index = {"label": LABELS, "split": np.full(240, "test"), "group": np.full(240, "")}
    before = snapshot(module)
    features = gessl.features(module, images)
    encoder = network().eval()
    for against, name in (("labels", "sigma/onehot"), ("finetuned", "sigma/finetuned")):
        one = protocol(name, **values)
        tasks = one.draw(pools_of("x", index), 5)
        assert tasks is not None
        rows = scored(one, features, tasks=tasks.arrays, encoder=encoder, images=images)
        found = gessl.sigma(module, images, LABELS, against=against, ways=4, tasks=3, train=6, val=5, test=8, seed=5)
        (row,) = (row for row in rows if row.protocol == found.name and row.metric == "sigma_mean")
        assert found.name.endswith("-cal")
        assert found.mean == row.interval.mean and (found.lo, found.hi) == (row.interval.lo, row.interval.hi)
        assert np.array_equal(found.per_task, row.outcomes)
    assert snapshot(module) == before
    written = yaml.safe_load((ROOT / "config/protocols/sigma__finetuned.yaml").read_text(encoding="utf-8"))
    assert {name: written[name] for name in FINETUNED} == FINETUNED


def test_defaults_are_those_of_the_protocol() -> None:
    import inspect

    written = yaml.safe_load((ROOT / "config/protocols/sigma__onehot.yaml").read_text(encoding="utf-8"))
    written["ways"] = written.pop("way")
    defaults = {name: each.default for name, each in inspect.signature(gessl.sigma).parameters.items()}
    assert written == {name: defaults[name] for name in written}


def test_an_encoder_and_its_features_are_the_same_model() -> None:
    module, images = network(), make_images()
    before = snapshot(module)
    found = gessl.sigma(module, images, LABELS, against=module, **SMALL)
    assert found.mean == 0
    expected = gessl.sigma(by_hand(module, images), None, LABELS, **SMALL)
    assert gessl.sigma(module, images, LABELS, **SMALL).mean == pytest.approx(expected.mean, rel=1e-4)
    assert snapshot(module) == before


@pytest.mark.parametrize(
    "labels",
    [
        torch.from_numpy(LABELS), LABELS.astype(np.uint8), [f"class {label}" for label in LABELS],
        np.array([f"class {label}" for label in LABELS], dtype=object), LABELS * 10 + 3,
    ],
)  # fmt: skip
def test_labels_may_be_numbers_or_names(labels: Any) -> None:
    assert gessl.sigma(FEATURES, None, labels, **SMALL).mean == gessl.sigma(FEATURES, None, LABELS, **SMALL).mean


def test_images_without_a_label_take_no_part() -> None:
    labels = np.where(np.arange(240) < 30, -1, LABELS)
    names = [f"class {label}" if label >= 0 else "" for label in labels]
    one, two = (gessl.sigma(FEATURES, None, each, **SMALL) for each in (labels, names))
    assert one.mean == two.mean
    assert min(part.min() for part in one.suite.splits) >= 30


def test_it_prints_what_it_is() -> None:
    found = gessl.sigma(FEATURES, None, LABELS, **SMALL)
    text = f"σ = {found.mean:.4g} nats per image (4 tasks, 95 % interval {found.lo:.4g} to {found.hi:.4g}; "
    assert str(found) == f"{text}sigma/onehot-eps0.1-kl-tau0.5-cal)"
    single = gessl.sigma(FEATURES, None, LABELS, **{**SMALL, "tasks": 1})
    assert single.lo is None and "(1 task; " in str(single)


NAN = FEATURES.copy()
NAN[[17, 40], 2] = np.nan
MODULE = network()


def uint8(count: int = 240) -> Any:
    return make_images()[:count]


REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("nan", (NAN, None, LABELS), {}, "model: features of 2 of 240 images are not finite, first of image 17"),
    ("a row", (FEATURES[0], None, LABELS), {}, r"model: features of the shape \[7\]"),
    ("text", (np.array([["a"]]), None, [0]), {}, "model: features hold <U1; give real numbers"),
    ("few labels", (FEATURES, None, LABELS[:9]), {}, r"labels: their shape is \[9\] for 240 images; give one label"),
    ("float labels", (FEATURES, None, LABELS / 2), {}, "labels: hold float64; give a whole number or a name"),
    ("one-hot", (FEATURES, None, np.eye(6, dtype=int)[LABELS]), {}, r"labels: their shape is \[240, 6\]"),
    ("ways", (FEATURES, None, LABELS), {"ways": 7}, "labels: 6 of 6 classes have 19 images or more .* ways=7; lower"),
    ("images of a class", (FEATURES, None, LABELS), {"test": 30}, "labels: 0 of 6 classes have 41 images or more"),
    ("no such class", (FEATURES, None, LABELS), {"test": 30, "ways": 7}, "lower train, val and test, and ways to 6 or"),
    ("ways alone", (FEATURES, None, LABELS), {"test": 30}, "ways=4; lower train, val and test$"),
    (
        "a folder",
        (MODULE, "photos", LABELS),
        {},
        "images: 'photos' is text; give an array .* gessl.features reads a folder",
    ),
    ("nothing", (MODULE, [None], LABELS), {}, r"images: their shape is \[1\]"),
    ("seed", (FEATURES, None, LABELS), {"seed": "a"}, "seed: must be a whole number, got 'a'"),
    ("one way", (FEATURES, None, LABELS), {"ways": 1}, "ways: must be a whole number, at least 2"),
    ("temperature", (FEATURES, None, LABELS), {"temperature": 0}, "temperature: must be a number, at least 0.001"),
    ("eps", (FEATURES, None, LABELS), {"eps": 0.0}, "eps: must be a number, above 0"),
    ("divergence", (FEATURES, None, LABELS), {"divergence": "l3"}, "divergence: must be one of kl, reverse_kl, js"),
    ("against", (FEATURES, None, LABELS), {"against": "nobody"}, "against: 'nobody' is unknown; give 'labels'"),
    ("others", (FEATURES, None, LABELS), {"against": FEATURES[:5]}, "against: features of 5 images, where model has"),
    ("no images", (MODULE, None, LABELS), {}, "images: None, but model is an encoder; give its images"),
    ("other images", (FEATURES, uint8(5), LABELS), {}, "model: features of 240 images, but there are 5 images"),
    ("raw", (MODULE, uint8(), LABELS), {"against": "finetuned", "calibrate": False}, "mostly measures confidence"),
    ("no module", (FEATURES, uint8(), LABELS), {"against": "finetuned"}, "'finetuned' trains copies of the encoder"),
    ("function", (MODULE.forward, uint8(), LABELS), {"against": "finetuned"}, "'finetuned' trains copies of the enc"),
    ("floats", (MODULE, uint8() / 255, LABELS), {"against": "finetuned"}, "give them as uint8"),
    ("maps", (nn.Conv2d(1, 2, 3), uint8(), LABELS), {}, r"model: gives \[240, 2, 6, 6\] for 240 images"),
]


@pytest.mark.parametrize(("given", "values", "line"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_bad_input_is_one_line(given: tuple[Any, ...], values: dict[str, Any], line: str) -> None:
    before = snapshot(MODULE)
    with pytest.raises(UserError, match=line) as raised:
        gessl.sigma(*given, **{**SMALL, **values})
    assert len(str(raised.value).splitlines()) == 1
    assert snapshot(MODULE) == before
