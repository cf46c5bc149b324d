"""Whole views: against torchvision with the same parameters, and in distribution against a torchvision pipeline."""

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as reference

from gessl.data import views as views_module
from gessl.data.views import Part, ViewPolicy, apply_parameters, make_views, whole_size, whole_views
from gessl.data.views.parameters import NEUTRAL, ViewParameters, draw_parameters
from tests.support.policies import shipped

POLICIES = shipped()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, channels: int = 3, size: tuple[int, int] = (32, 32)) -> Tensor:
    """Smooth coloured blobs with some noise, uint8: crops and blurs of them differ."""
    coarse = torch.rand(count, channels, 4, 4, generator=seeded(3))
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    noise = torch.rand(smooth.shape, generator=seeded(4))
    return (0.85 * smooth + 0.15 * noise).mul(255).round().byte()


def one_by_one(images: Tensor, parameters: ViewParameters, size: int | None) -> Tensor:
    """The same views made by torchvision's functions, image by image, with the flip at the end."""
    shape = list(images.shape[2:]) if size is None else [size, size]
    width = max(3, min(shape) // 10 // 2 * 2 + 1)
    steps = (
        reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation, reference.adjust_hue,
    )  # fmt: skip
    views = []
    for i, image in enumerate(images):
        box = parameters.box[i].tolist()
        view = reference.resized_crop(image.float() / 255, *box, shape, InterpolationMode.BILINEAR, antialias=True)
        for kind in parameters.order[i].tolist():
            factor = parameters.factors[i, kind].item()
            view = view if factor == NEUTRAL[kind] else steps[kind](view, factor)
        view = reference.rgb_to_grayscale(view, len(image)) if parameters.gray[i] else view
        sigma = parameters.sigma[i].item()
        view = reference.gaussian_blur(view, [width, width], [sigma, sigma]) if sigma else view
        view = reference.solarize(view, 0.5) if parameters.solarize[i] else view
        views.append(reference.horizontal_flip(view) if parameters.flip[i] else view)
    return torch.stack(views)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", sorted(set(itertools.chain(*POLICIES.values())), key=repr))
def test_views_are_torchvisions_with_the_same_parameters(policy: ViewPolicy, channels: int) -> None:
    images = pictures(40, channels, (28, 32))
    parameters = draw_parameters(policy, 40, (28, 32), seeded())
    ours, theirs = apply_parameters(images, parameters, policy.size), one_by_one(images, parameters, policy.size)
    # A value within rounding of the threshold may fall on either side of it.
    bare = one_by_one(images, dataclasses.replace(parameters, solarize=parameters.solarize & False), policy.size)
    clear = ((bare - 0.5).abs() > 1e-5) | ~parameters.solarize.view(-1, 1, 1, 1)
    torch.testing.assert_close(ours[clear], theirs[clear], rtol=0, atol=1e-5)


def test_make_views_draws_each_policy_in_turn() -> None:
    images, policies, generator = pictures(20), POLICIES["cifar-asym"], seeded(5)
    views = make_views(images, policies, seeded(5)).views
    assert views.shape == (2, 20, 3, 32, 32)
    assert views.dtype == torch.float32
    for view, policy in zip(views, policies, strict=True):
        expected = apply_parameters(images, draw_parameters(policy, 20, (32, 32), generator))
        torch.testing.assert_close(view, expected, rtol=0, atol=1e-6)


def test_small_crops_come_behind_the_views_and_share_their_draws() -> None:
    """The small crops change no view; their boxes and flips follow those of the views."""
    images, policies, generator = pictures(20), POLICIES["cifar-crops"], seeded(5)
    drawn = make_views(images, policies, seeded(5))
    assert torch.equal(drawn.views, make_views(images, policies[:2], seeded(5)).views)
    assert drawn.crops is not None
    assert drawn.crops.shape == (4, 20, 3, 16, 16)
    assert drawn.crops.dtype == torch.float32
    assert 0 <= drawn.crops.min() <= drawn.crops.max() <= 1
    assert drawn.boxes.shape == (6, 20, 4)
    assert drawn.flips.shape == (6, 20)
    for place, policy in enumerate(policies):
        parameters = draw_parameters(policy, 20, (32, 32), generator)
        assert torch.equal(drawn.boxes[place], parameters.box)
        assert torch.equal(drawn.flips[place], parameters.flip)
        expected = apply_parameters(images, parameters, policy.size)
        view = drawn.views[place] if place < 2 else drawn.crops[place - 2]
        torch.testing.assert_close(view, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["cifar-asym", "cifar-crops"])
def test_views_of_a_part_are_those_of_the_whole(name: str) -> None:
    images, rows = pictures(20), torch.tensor([3, 4, 11, 12, 19])
    whole = make_views(images, POLICIES[name], seeded(5))
    part = make_views(images[rows], POLICIES[name], seeded(5), Part(rows, 20))
    others = torch.ones(20, dtype=torch.bool).index_fill(0, rows, False)
    for ours, theirs in zip(part[:2], whole[:2], strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert torch.equal(ours[:, rows], theirs[:, rows])
            assert ours[:, others].isnan().all()
    assert torch.equal(part.boxes, whole.boxes) and torch.equal(part.flips, whole.flips)


def test_white_stays_white() -> None:
    """No rounding of the resampling weights leaves the unit range."""
    white = torch.full((200, 3, 32, 32), 255, dtype=torch.uint8)
    crops = make_views(white, (ViewPolicy(), ViewPolicy(size=15)), seeded()).crops
    assert crops is not None
    assert crops.max() <= 1
    torch.testing.assert_close(crops, torch.ones_like(crops), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_makes_its_views(name: str) -> None:
    policies = POLICIES[name]
    sides = {"digits": 8, "glyphs": 28, "cifar": 32, "tiny": 64, "stl10": 96, "imagenet": 224}
    side = sides.get(name.partition("-")[0]) or int(name.rpartition("-")[2])
    drawn = make_views(pictures(2, size=(side, side)), policies, seeded())
    small, whole = policies[whole_views(policies) :], whole_size(policies) or side
    assert drawn.views.shape == (len(policies) - len(small), 2, 3, whole, whole)
    assert (drawn.crops is not None) == bool(small)
    if drawn.crops is not None:
        assert drawn.crops.shape == (len(small), 2, 3, small[0].size, small[0].size)
        assert small[0].size is not None
        assert small[0].size < side


def test_pixel_statistics_follow_a_torchvision_pipeline() -> None:
    """Mean, spread and correlations of the views' summaries, within 4.5 standard errors."""
    count = 2000
    policy = dataclasses.replace(POLICIES["cifar-strong"][0], solarize_prob=0.2)
    image = pictures(1)
    pipeline = v2.Compose(
        [
            v2.RandomResizedCrop(32, scale=policy.crop_scale, ratio=policy.crop_ratio),
            v2.RandomApply([v2.ColorJitter(*policy.jitter)], p=policy.jitter_prob),
            v2.RandomGrayscale(policy.gray_prob),
            v2.RandomApply([v2.GaussianBlur(3, policy.blur_sigma)], p=policy.blur_prob),
            v2.RandomSolarize(0.5, policy.solarize_prob),
            v2.RandomHorizontalFlip(policy.flip),
        ]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        theirs = summaries(torch.stack([pipeline(image[0].float() / 255) for _ in range(count)]))
    ours = summaries(make_views(image.expand(count, -1, -1, -1), (policy,), seeded(12)).views[0])
    error = ((ours.var(0) + theirs.var(0)) / count).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() / error).max() < 4.5


def summaries(views: Tensor) -> Tensor:
    """Per view: channel means, their squares and products, spreads, edge strength, left-right difference."""
    views = views.double()
    means = views.mean((2, 3))
    spread = views.std((2, 3))
    edges = (views.diff(dim=3).abs().mean((1, 2, 3)), views.diff(dim=2).abs().mean((1, 2, 3)))
    sides = (views[..., :16].mean((1, 2, 3)) - views[..., 16:].mean((1, 2, 3)),)
    products = (means[:, 0] * means[:, 1], means[:, 1] * means[:, 2])
    return torch.cat([means, means**2, spread, torch.stack([*edges, *sides, *products], 1)], 1)


def test_same_seed_gives_the_same_bits_and_another_seed_other_views() -> None:
    images = pictures(16)
    first, again, other = (make_views(images, POLICIES["cifar-strong"], seeded(seed)).views for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_a_view_depends_on_its_own_image_alone() -> None:
    images = pictures(16)
    changed = images.clone()
    changed[3] = 255 - changed[3]
    before, after = (make_views(each, POLICIES["cifar-strong"], seeded()).views for each in (images, changed))
    same = (before == after).flatten(2).all(2)
    assert same[:, torch.arange(16) != 3].all()
    assert not same[:, 3].any()


def test_a_policy_that_does_nothing_returns_the_images() -> None:
    images = pictures(4)
    whole = ViewPolicy(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    assert torch.equal(make_views(images, (whole,), seeded()).views[0], images.float() / 255)


def test_colour_operations_leave_one_channel_alone() -> None:
    images = pictures(32, channels=1)
    colour = ViewPolicy(jitter=(0.0, 0.0, 0.9, 0.5), jitter_prob=1.0, gray_prob=1.0)
    plain, coloured = (make_views(images, (policy,), seeded()).views for policy in (ViewPolicy(), colour))
    assert torch.equal(plain, coloured)


def test_the_images_and_the_global_generator_are_left_as_they_were() -> None:
    images = pictures(8)
    before, state = images.clone(), torch.get_rng_state()
    make_views(images, POLICIES["cifar-asym"], seeded())
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_reads_back_from_the_device() -> None:
    """A meta tensor has no data: whatever waits for a value of it raises."""
    policy = dataclasses.replace(POLICIES["cifar-strong"][0], solarize_prob=0.5)
    policies = (policy, policy, dataclasses.replace(policy, size=16))
    drawn = make_views(pictures(8).to("meta"), policies, seeded())
    assert drawn.views.shape == (2, 8, 3, 32, 32)
    assert drawn.crops is not None
    assert drawn.crops.shape == (1, 8, 3, 16, 16)


@pytest.mark.gpu
def test_views_on_a_gpu_are_those_of_the_cpu_and_never_wait() -> None:
    whole = ViewPolicy(jitter=(0.8, 0.8, 0.8, 0.2), gray_prob=0.2, blur_prob=0.5, solarize_prob=0.2, flip=0.5)
    small = dataclasses.replace(whole, crop_scale=(0.08, 0.5), size=16)
    images, policies = pictures(64), (whole, whole, small, small)
    there = images.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        drawn = make_views(there, policies, seeded())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for ours, expected in zip(drawn, make_views(images, policies, seeded()), strict=True):
        torch.testing.assert_close(ours.cpu(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(2, 4, 8, 8, dtype=torch.uint8)],
)
def test_images_of_another_kind_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match="give uint8"):
        make_views(images, POLICIES["digits"], seeded())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((), "policies: no view; give one"),
        ((16, 12), r"sizes \[16, 12\]"),
        ((16, None), r"sizes \[16, None\]; give views \(None\) first"),
        ((None, 16, None), r"sizes \[None, 16, None\]"),
        ((None, 16, 12), "then small crops of one size"),
    ],
)
def test_policies_in_another_order_are_refused(sizes: tuple[int | None, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_views(pictures(2), tuple(ViewPolicy(size=size) for size in sizes), seeded())


@pytest.mark.parametrize("size", [None, pytest.param(96, marks=pytest.mark.slow)])
def test_neither_blocks_nor_threads_change_a_bit(size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images so large that torch shares out what is summed up of one."""
    images = pictures(6, size=(224, 224))
    policies = (
        POLICIES["imagenet-strong"][0],
        *([dataclasses.replace(POLICIES["imagenet-strong"][0], size=size)] if size else []),
    )
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            for block in (1, 2 * images[0].numel(), 1 << 40):
                torch.set_num_threads(threads)
                monkeypatch.setattr(views_module, "BLOCK", block)
                drawn = make_views(images, policies, seeded(4))
                found.append([each for each in drawn if each is not None])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(one, same) for one, same in zip(found[0], other, strict=True))
