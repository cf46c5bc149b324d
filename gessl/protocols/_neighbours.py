"""The exact nearest neighbours of features, by matrix products."""

from typing import NamedTuple

import torch
from torch import Tensor

from gessl.protocols._distances import distances, products, reach

ROWS, COLUMNS = 1024, 8192  # queries, and features of the bank, that are compared at once by products
GATHERED_BYTES = 2**24  # of candidates compared at once by the distances that count


class Neighbours(NamedTuple):
    """Of each query: places in the bank, int64 [q, k], nearest first, and their Euclidean distances [q, k]."""

    places: Tensor
    distances: Tensor


def nearest(bank: Tensor, queries: Tensor, k: int) -> Neighbours:
    """The k nearest of each query, whatever the other queries are.

    Candidates are found by matrix products and ranked by the distances that count. Where it is not proven that they
    hold all neighbours, products in float64 are tried, then the whole bank, query by query. That last way is slow. It
    is the only one for a query whose k-th distance is that of others, too (duplicates): which of them are neighbours is
    what `torch.topk` makes of all distances.

    Args:
        bank: finite float [m, F], with m ≥ k.
        queries: finite float [q, F], of the same type.
        k: number of neighbours.

    Returns:
        neighbours; equal distances are in the order of the bank.
    """
    centre = bank.mean(0)
    found = [_ranked(bank, block, _nearest_places(bank, block, centre, k)) for block in queries.split(ROWS)]
    return Neighbours(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _nearest_places(bank: Tensor, queries: Tensor, centre: Tensor, k: int) -> Tensor:
    """Places of the k nearest [q, k], in any order."""
    places = torch.empty(len(queries), k, dtype=torch.long, device=queries.device)
    left = torch.arange(len(queries), device=queries.device)
    for dtype in dict.fromkeys((bank.dtype, torch.float64)):
        if len(left) and len(bank) > _candidates_of(k):
            candidates, complete = _candidates(bank, queries[left], centre, k, dtype)
            ranked = _ranked(bank, queries[left], candidates)
            places[left] = ranked.places[:, :k]
            left = left[~complete | (ranked.distances[:, k - 1] == ranked.distances[:, k])]
    for row in left.tolist():
        places[row] = distances(queries[row : row + 1], bank)[0].topk(k, largest=False).indices
    return places


def _candidates_of(k: int) -> int:
    """How many candidates are kept: with more, the search is slower, with fewer, less often enough."""
    return 2 * k + 8


def _candidates(bank: Tensor, queries: Tensor, centre: Tensor, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Places of the nearest by products [q, c], and whether all as near as the k-th are proven to be among them [q]."""
    keep, centred = _candidates_of(k), queries.to(dtype) - centre
    squares = centred.new_empty(len(queries), 0)
    places, error = squares.long(), centred.new_zeros(len(queries))
    for start in range(0, len(bank), COLUMNS):
        block = bank[start : start + COLUMNS].to(dtype) - centre
        found = products(centred[None], block[None])
        near, columns = found.squares[0].topk(min(keep, len(block)), largest=False)
        squares, places = torch.cat([squares, near], 1), torch.cat([places, columns + start], 1)
        squares, kept = squares.topk(min(keep, squares.shape[1]), largest=False)
        places, error = places.gather(1, kept), torch.maximum(error, found.error[0])
    return places, squares[:, -1] > reach(squares[:, k - 1], error, queries)


def _ranked(bank: Tensor, queries: Tensor, places: Tensor) -> Neighbours:
    """All of `places` [q, c] by the distances that count, equal ones in the order of the bank."""
    places = places.sort().values
    rows = max(1, GATHERED_BYTES // (places.shape[1] * bank[0].nbytes))
    blocks = zip(queries[:, None].split(rows), places.split(rows), strict=True)
    away = torch.cat([distances(query, bank[candidates])[:, 0] for query, candidates in blocks])
    ranked, order = away.sort(stable=True)
    return Neighbours(places.gather(1, order), ranked)
