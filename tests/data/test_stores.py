"""An array of images read in another size: whole images, and views cut out of what is stored."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from gessl.data import stores
from gessl.data.stores import ArrayStore
from gessl.data.views import Part, ViewPolicy
from gessl.rng import generator

POLICIES = (ViewPolicy(flip=0.5), ViewPolicy(crop_scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1)))


def images(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, channels, 24, 20), np.uint8)


@pytest.mark.parametrize(
    ("channels", "size"), [(3, (24, 20)), (3, (12, 12)), (3, (30, 31)), (1, (12, 10)), (1, (24, 20))]
)
def test_whole_images_are_torchs_resizing(
    channels: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "BLOCK", 4)
    store = ArrayStore(images(channels)).resized(3, size)
    assert store.shape == (11, 3, *size) and len(store) == 11
    whole = torch.from_numpy(images(channels)).float()
    if size != (24, 20):
        whole = F.interpolate(whole, size, mode="bilinear", antialias=True).round().clamp(0, 255)
    expected = whole.byte().expand(-1, 3, -1, -1).numpy()
    positions = np.array([[3, 0], [10, 3], [7, 1]])
    np.testing.assert_array_equal(store[positions], expected[positions])
    np.testing.assert_array_equal(store[np.arange(11)], expected)
    assert store[np.array([], np.int64)].shape == (0, 3, *size)


def test_size_after_size_starts_from_what_is_stored() -> None:
    store = ArrayStore(images())
    twice, once = store.resized(3, (5, 5)).resized(3, (16, 16)), store.resized(3, (16, 16))
    np.testing.assert_array_equal(twice[np.arange(4)], once[np.arange(4)])
    back = store.resized(3, (5, 5)).resized(3, (24, 20))
    np.testing.assert_array_equal(back[np.arange(4)], images()[:4])


def test_views_of_another_size_are_of_the_same_crops() -> None:
    store, positions = ArrayStore(images()), np.array([4, 0, 9])
    (own,), (small,) = (
        each.load(positions, POLICIES, [generator(1)]).views() for each in (store, store.resized(3, (10, 10)))
    )
    assert small.views.shape == (2, 3, 3, 10, 10) and own.views.shape == (2, 3, 3, 24, 20)
    assert torch.equal(own.boxes, small.boxes) and torch.equal(own.flips, small.flips)
    assert small.views.min() >= 0 and small.views.max() <= 1
    part = Part(torch.tensor([2, 0]), 3)
    (some,) = store.resized(3, (10, 10)).load(positions, POLICIES, [generator(1)], part).views()
    torch.testing.assert_close(some.views[:, part.rows], small.views[:, part.rows])
    assert some.views[:, 1].isnan().all()


def test_policies_of_one_size_make_whole_views_of_that_size() -> None:
    store, positions = ArrayStore(images()), np.array([4, 0, 9])
    sized = tuple(dataclasses.replace(policy, size=10) for policy in POLICIES)
    small = stores.for_views(store, sized)
    assert small.shape == (11, 3, 10, 10)
    assert stores.for_views(store, POLICIES) is store
    (found,), (expected,) = (small.load(positions, policies, [generator(1)]).views() for policies in (sized, POLICIES))
    assert found.crops is None and torch.equal(found.views, expected.views)
    assert found.views.shape == (2, 3, 3, 10, 10)


@pytest.mark.parametrize("inside", [(13, 13), (11, 12), (10, 10)])
def test_whole_images_are_cut_around_the_centre(inside: tuple[int, int]) -> None:
    store = ArrayStore(images()).resized(3, (10, 10), inside)
    whole = F.interpolate(torch.from_numpy(images()).float(), inside, mode="bilinear", antialias=True)
    expected = v2.functional.center_crop(whole.round().clamp(0, 255).byte(), [10, 10])
    np.testing.assert_array_equal(store[np.arange(11)], expected)
    np.testing.assert_array_equal(
        ArrayStore(images()).resized(3, (20, 20), (24, 20))[np.arange(3)], images()[:3, :, 2:22]
    )
