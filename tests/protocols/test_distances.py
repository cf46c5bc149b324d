"""The errors that are claimed for products, against float64."""

from types import SimpleNamespace

import pytest
import torch

from gessl.protocols import _distances as distances


def pair(features, offset, seed=0, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    return (offset + torch.randn(1, count, features, generator=random, dtype=dtype) for count in (40, 60))


def squares(queries, others):
    return (queries.double()[:, :, None] - others.double()[:, None]).square().sum(-1)


@pytest.mark.parametrize("offset", [0, 1, 300])
@pytest.mark.parametrize("features", [1, 7, 512, 3000])
def test_products_are_within_their_error(features, offset):
    queries, others = pair(features, offset)
    found = distances.products(queries, others)
    off = (found.squares.double() - squares(queries, others)).abs().amax(-1)
    assert torch.all(off <= found.error)
    # the claim is not idle, either: in the worst case the roundings of n terms all point the same way
    assert torch.all(
        found.error <= 4 * (features + 8) * 2**-23 * (queries.norm(dim=-1) + others.norm(dim=-1).amax()) ** 2
    )


@pytest.mark.parametrize("offset", [0, 300])
@pytest.mark.parametrize("features", [1, 7, 512])
def test_products_at_places_are_within_their_error_too(features, offset):
    bank, others = pair(features, offset)
    places = torch.randint(40, (2, 25), generator=torch.Generator().manual_seed(1))  # some of them twice
    others = others.view(2, 30, features)
    found = distances.products_at(bank[0], bank[0].norm(dim=-1), places, others)
    off = (found.squares.double() - squares(bank[0][places], others)).abs().amax(-1)
    assert found.squares.shape == (2, 25, 30) and torch.all(off <= found.error)
    assert torch.allclose(found.error, distances.products(bank[0][places], others).error)


@pytest.mark.parametrize("features", [1, 512])
def test_distances_that_count_keep_their_digits_far_from_zero(features):
    queries, others = pair(features, 1e5)
    exact = squares(queries, others).sqrt()
    off = (distances.distances(queries, others).double() - exact).abs()
    assert torch.all(off <= (features + 5) / 2 * 2**-24 * exact)


def test_the_error_of_products_that_round_their_terms_is_known(monkeypatch):
    queries, others = pair(16, 0)
    rounded = -2 * (queries.bfloat16().float() @ others.bfloat16().float().mT)
    rounded += queries.square().sum(-1)[:, :, None] + others.square().sum(-1)[:, None]
    off = (rounded.double() - squares(queries, others)).abs().amax(-1)
    assert not torch.all(off <= distances.products(queries, others).error)
    monkeypatch.setattr(torch.backends.mkldnn, "matmul", SimpleNamespace(fp32_precision="bf16"))
    assert torch.all(off <= distances.products(queries, others).error)


def test_overflow_proves_nothing():
    error = distances.products(torch.full((1, 1, 4), 1e19), torch.full((1, 1, 4), 1e19)).error
    assert not torch.isfinite(error).any()
