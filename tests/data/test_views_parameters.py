"""Distributions of the random view parameters against torchvision's sampler and closed forms."""

import dataclasses
import math

import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from gessl.data.views.parameters import NEUTRAL, ViewParameters, blur_kernels, blur_width, draw_parameters
from gessl.data.views.policy import ViewPolicy
from tests.support.policies import shipped

POLICIES = shipped()

SIZE = (32, 32)


def draw(policy: ViewPolicy, count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> ViewParameters:
    return draw_parameters(policy, count, size, torch.Generator().manual_seed(seed))


def torchvision_boxes(policy: ViewPolicy, count: int, size: tuple[int, int]) -> torch.Tensor:
    crop = v2.RandomResizedCrop(size, scale=policy.crop_scale, ratio=policy.crop_ratio)
    image = torch.empty(3, *size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        drawn = [crop.make_params([image]) for _ in range(count)]
    return torch.tensor([[box["top"], box["left"], box["height"], box["width"]] for box in drawn])


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (24, 48)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.4, 1.0)])
def test_crop_boxes_follow_torchvisions_distribution(size: tuple[int, int], scale: tuple[float, float]) -> None:
    policy = ViewPolicy(crop_scale=scale)
    ours, theirs = draw(policy, 4000, size=size).box, torchvision_boxes(policy, 4000, size)
    for name, measure in {
        "area": lambda box: box[:, 2] * box[:, 3],
        "ratio": lambda box: box[:, 3] / box[:, 2],
        "top": lambda box: box[:, 0] / (size[0] - box[:, 2] + 1),
        "left": lambda box: box[:, 1] / (size[1] - box[:, 3] + 1),
    }.items():
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3, name


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (5, 50)])
def test_boxes_lie_inside_the_image(size: tuple[int, int]) -> None:
    top, left, height, width = draw(ViewPolicy(crop_scale=(0.01, 1.0), crop_ratio=(0.1, 10)), 3000, size=size).box.T
    assert top.min() >= 0
    assert left.min() >= 0
    assert height.min() >= 1
    assert width.min() >= 1
    assert (top + height).max() <= size[0]
    assert (left + width).max() <= size[1]


@pytest.mark.parametrize("size", [(8, 40), (40, 8), (30, 32), (7, 40)])
def test_where_no_box_fits_the_central_one_of_torchvision_is_taken(size: tuple[int, int]) -> None:
    policy = ViewPolicy(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0) if size == (30, 32) else (3 / 4, 4 / 3))
    assert torch.equal(draw(policy, 20, size=size).box, torchvision_boxes(policy, 20, size))


def test_images_of_many_sizes_get_the_boxes_that_they_get_among_their_like() -> None:
    policy = ViewPolicy(crop_scale=(0.5, 1.0))
    kinds = [(8, 40), (40, 8), (30, 32), (333, 500)]
    sizes = torch.tensor(kinds).repeat(50, 1)
    mixed = draw_parameters(policy, 200, sizes, torch.Generator().manual_seed(3))
    for place, size in enumerate(kinds):
        alone = draw(policy, 200, seed=3, size=size)
        assert torch.equal(mixed.box[place::4], alone.box[place::4])
    assert torch.equal(mixed.flip, alone.flip) and torch.equal(mixed.order, alone.order)


def test_probabilities_and_ranges() -> None:
    count = 20_000
    policy = ViewPolicy(
        jitter=(0.4, 1.5, 0.2, 0.1), jitter_prob=0.7, gray_prob=0.2, blur_prob=0.3, solarize_prob=0.1, flip=0.5
    )
    drawn = draw(policy, count)
    jittered = (drawn.factors != torch.tensor(NEUTRAL)).any(1)
    for flags, probability in (
        (jittered, 0.7), (drawn.gray, 0.2), (drawn.sigma > 0, 0.3), (drawn.solarize, 0.1), (drawn.flip, 0.5),
    ):  # fmt: skip
        error = math.sqrt(probability * (1 - probability) / count)
        assert abs(flags.double().mean().item() - probability) < 4.5 * error
    for values, low, high in zip(drawn.factors[jittered].T, (0.6, 0, 0.8, -0.1), (1.4, 2.5, 1.2, 0.1), strict=True):
        assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3
    assert stats.kstest(drawn.sigma[drawn.sigma > 0], "uniform", (0.1, 1.9)).pvalue > 1e-3
    assert torch.equal(drawn.factors[~jittered], torch.tensor(NEUTRAL).expand(int((~jittered).sum()), 4))


def test_every_order_of_the_jitter_is_equally_likely() -> None:
    drawn = draw(ViewPolicy(jitter=(0.4, 0.4, 0.4, 0.1), jitter_prob=1.0), 12_000)
    counts = drawn.order.unique(dim=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_operations_of_no_strength_come_last_in_the_order() -> None:
    drawn = draw(ViewPolicy(jitter=(0.4, 0.0, 0.4, 0.0), jitter_prob=1.0), 2000)
    assert drawn.order[:, :2].sort(1).values.unique(dim=0).tolist() == [[0, 2]]
    first = (drawn.order[:, 0] == 0).double().mean().item()
    assert abs(first - 0.5) < 4.5 * 0.5 / math.sqrt(2000)


def test_draws_are_independent_of_each_other() -> None:
    drawn = draw(dataclasses.replace(POLICIES["cifar-strong"][0], jitter_prob=1.0), 20_000)
    columns = [drawn.box.prod(1), drawn.flip, drawn.gray, drawn.sigma > 0, *drawn.factors.T, drawn.order[:, 0]]
    correlation = torch.corrcoef(torch.stack([column.double() for column in columns]))
    assert (correlation - torch.eye(len(columns))).abs().max() < 5 / math.sqrt(20_000)


def test_a_stronger_jitter_leaves_the_crops_as_they_were() -> None:
    weak, strong = draw(ViewPolicy(flip=0.5), 50), draw(ViewPolicy(flip=0.5, jitter=(0.8, 0.8, 0.8, 0.2)), 50)
    assert torch.equal(weak.box, strong.box)
    assert torch.equal(weak.flip, strong.flip)


@pytest.mark.parametrize(("size", "width"), [(8, 3), (32, 3), (64, 7), (96, 9), (224, 23)])
def test_blur_width_is_odd_and_about_a_tenth(size: int, width: int) -> None:
    assert blur_width((size, size)) == blur_width((2 * size, size)) == width


def test_blur_kernels_are_sampled_gaussians() -> None:
    kernels = blur_kernels(torch.tensor([0.5, 2.0]), 7)
    for kernel, sigma in zip(kernels, (0.5, 2.0), strict=True):
        density = stats.norm.pdf(range(-3, 4), scale=sigma)
        torch.testing.assert_close(kernel.double(), torch.from_numpy(density / density.sum()), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_scale", (0.0, 1.0)), ("crop_scale", (0.5, 0.2)), ("crop_scale", (0.5, 1.1)), ("crop_scale", (0.5,)),
        ("crop_scale", (float("nan"), 1.0)), ("crop_ratio", (-1.0, 1.0)), ("blur_sigma", (0.0, 1.0)),
        ("blur_sigma", (1.0, float("inf"))), ("jitter", (0.4, 0.4, 0.4)), ("jitter", (-0.1, 0, 0, 0)),
        ("jitter", (0, 0, 0, 0.6)), ("jitter", (0, float("nan"), 0, 0)), ("jitter_prob", 1.1), ("gray_prob", -0.1),
        ("blur_prob", float("nan")), ("solarize_prob", 2), ("flip", -1),
        ("size", 1), ("size", 0),
    ],
)  # fmt: skip
def test_bad_policy_values_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: must be .*, got "):
        ViewPolicy(**{field: value})  # type: ignore[arg-type]
