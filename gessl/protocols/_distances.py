"""Euclidean distances of frozen features in two forms: the one that counts, and a fast one with a proven error.

The distances that count are roots of summed squared differences. Each depends on its two features alone, whatever else
is in the block, and cancellation costs them nothing. ‖a‖² + ‖b‖² - 2ab by a matrix product is many times as fast, but
its last bits depend on the block. A search therefore picks candidates by products, all those that `reach` says may be
needed, and compares them by the distances that count.

The proof, after Higham, "Accuracy and Stability of Numerical Algorithms" (2002), chapter 3. Let u be the unit roundoff,
n the number of features, d a true distance. To first order, a sum of n products is off by at most nu times the sum of
their absolute values, in any order, with or without fused multiply-add.

* The square of a distance that counts is d² (1 + θ) with |θ| ≤ (n + 4) u: two roundings of the squared difference, one
  of the square, n - 1 of the sum, two of the root.
* A product is off by at most (n + 8) u (‖a‖ + ‖b‖)²: n from three sums, whose terms add up to no more than that square,
  three from squared norms, two from adding up, three if a and b are differences from a centre, each rounded. A centre
  that is common to all makes the bound small where features are far from 0: norms shrink, distances stay.

Both are doubled below, which covers the terms of higher order while n < 1 / 8u, two million in float32. `tiny` covers
underflow. Where something overflows, the error is infinite or NaN: nothing is proven.
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

ROUNDINGS = 8  # beyond the n of a sum


class Products(NamedTuple):
    """Approximate squared distances [e, q, m], and by how much those of a query may be off [e, q]."""

    squares: Tensor
    error: Tensor


def distances(queries: Tensor, others: Tensor) -> Tensor:
    """The Euclidean distances that count [..., q, m], between features [..., q, F] and [..., m, F]."""
    return torch.cdist(queries, others, compute_mode="donot_use_mm_for_euclid_dist")


def products(queries: Tensor, others: Tensor) -> Products:
    """Squared Euclidean distances by matrix products.

    Args:
        queries: features [e, q, F], as they are or less a centre.
        others: features [e, m, F], as they are or less the same centre.
    """
    ours, theirs = (torch.linalg.vector_norm(features, dim=-1) for features in (queries, others))
    squares = (ours.square()[:, :, None] + theirs.square()[:, None]).baddbmm_(queries, others.mT, alpha=-2)
    return Products(squares, _error(queries, ours, theirs))


def products_at(features: Tensor, norms: Tensor, places: Tensor, others: Tensor) -> Products:
    """What `products` gives for `features[places]`; on a CPU nothing is gathered, which takes longer than the products.

    Args:
        features: [n, F].
        norms: of these [n].
        places: which of them are the queries [e, q].
        others: features [e, m, F].
    """
    if features.is_cuda:
        return products(features[places], others)
    pairs, each, count = others.shape[1] * places.shape[1], places.shape[1], len(places)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        wanted = torch.sparse_csr_tensor(
            torch.arange(0, count * pairs + 1, each),
            places[:, None].expand(-1, others.shape[1], -1).flatten(),
            features.new_zeros(count * pairs),
            size=(count * others.shape[1], len(features)),
            check_invariants=False,  # columns are in no order, which the product does not need
        )
    found = torch.sparse.sampled_addmm(wanted, others.flatten(0, 1), features.mT, beta=0).values()
    ours, theirs = norms[places], torch.linalg.vector_norm(others, dim=-1)
    squares = ours.square()[:, :, None] + theirs.square()[:, None]
    squares -= 2 * found.view(count, others.shape[1], each).mT
    return Products(squares, _error(features, ours, theirs))


def _error(features: Tensor, ours: Tensor, theirs: Tensor) -> Tensor:
    """By how much the squares of features may be off that have these norms, [e, q] and [e, m]: [e, q]."""
    factor, tiny = features.shape[-1] + ROUNDINGS, torch.finfo(features.dtype).tiny
    return factor * (_epsilon(features) * (ours + theirs.amax(-1, keepdim=True)).square() + 8 * tiny)


def reach(kth: Tensor, error: Tensor, features: Tensor) -> Tensor:
    """What no approximate square exceeds whose distance that counts is among the k smallest or equals the k-th.

    Args:
        kth: the k-th smallest approximate square of each query, any shape.
        error: by how much these squares may be off, the same shape.
        features: any features [..., F] in the type in which distances count.
    """
    factor, finfo = features.shape[-1] + ROUNDINGS, torch.finfo(features.dtype)
    return (kth + error) * (1 + 2 * factor * finfo.eps) + error + 4 * factor * finfo.tiny


def _epsilon(features: Tensor) -> float:
    """2u of a matrix product, also where the environment lets it round its float32 terms to TF32 or bfloat16."""
    backend = torch.backends.cuda if features.is_cuda else torch.backends.mkldnn
    reduced = features.dtype == torch.float32 and backend.matmul.fp32_precision not in {"none", "ieee"}
    return torch.finfo(torch.bfloat16 if reduced else features.dtype).eps
