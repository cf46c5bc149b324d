"""VICRegL with the official code's choice of matches; two views with 2x2 maps and a small crop with a 1x2 map."""

import torch

from gessl.methods.vicregl import VICRegL
from gessl.rng import generator
from tests.methods.oracles import draw, pairs
from tests.methods.oracles.vicreg import agreement, covariance_term, variance_term

N, DIM, LOCAL = 4, 3, 2
METHOD = VICRegL(
    hidden=7,
    dim=DIM,
    local_hidden=6,
    local_dim=LOCAL,
    matches=2,
    matches_back=3,  # more than the crop has cells
    alpha=0.6,
    invariance=3.0,
    variance=5.0,
    covariance=0.7,
)


def maps(kind: str, name: str, *shape: int) -> torch.Tensor:
    cells = draw(name, *shape)
    if kind == "aligned":
        return cells[:1].expand(shape).clone()
    if kind == "near-collapsed":
        return draw("one cell", *shape[2:])[None, None] + 1e-3 * cells
    return cells


# corners and sides at random places between pixels, so that no two distances are equal
BOXES = 1 + 9 * torch.rand(3, N, 4, dtype=torch.float64, generator=generator(0, "boxes"))
FLIPS = torch.rand(3, N, generator=generator(0, "flips")) < 0.5
SHAPES = [(2, 2), (2, 2), (1, 2)]
PAIRS = ((0, 1), (0, 2), (1, 0), (1, 2))


def case(kind: str):
    outputs = {
        "z": pairs(kind, 3)[:, :N, :DIM],
        "maps": maps(kind, "maps", 2, N, 2, 2, LOCAL),
        "crops": maps(kind, "crops", 1, N, 1, 2, LOCAL),
    }
    starts, ones, others, shares = (0, 4, 8), [[] for _ in range(N)], [[] for _ in range(N)], []
    for a, b, found in matches(outputs):
        for n in range(N):
            ones[n] += [starts[a] + cell for cell, _ in found[n]]
            others[n] += [starts[b] + partner for _, partner in found[n]]
        shares += [1 / (len(found[0]) * 2 * len(PAIRS))] * len(found[0])
    targets = {"cells": torch.tensor(ones), "partners": torch.tensor(others)}
    return outputs, {**targets, "shares": torch.tensor(shares, dtype=torch.float64)}


def places(box: list[float], flip: bool, height: int, width: int) -> list[tuple[float, float]]:
    top, left, tall, wide = box
    found = []
    for row in range(height):
        for column in range(width):
            seen = width - 1 - column if flip else column  # a mirrored view shows the right end of its box on the left
            found.append((top + tall * (row + 0.5) / height, left + wide * (seen + 0.5) / width))
    return found


def distance(a, b) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5


def nearest(a: list, b: list) -> list[tuple[float, int]]:
    """For each of `a` the distance to, and the number of, its nearest in `b`."""
    return [min((distance(one, other), k) for k, other in enumerate(b)) for one in a]


def by_feature(a: list, b: list) -> list[tuple[int, int]]:
    return [(cell, partner) for cell, (_, partner) in enumerate(nearest(a, b))]


def by_location(at_a: list, at_b: list, count: int) -> list[tuple[int, int]]:
    found = nearest(at_a, at_b)
    best = sorted(range(len(found)), key=lambda cell: found[cell][0])[:count]
    return [(cell, found[cell][1]) for cell in sorted(best)]


def matches(outputs) -> list[tuple[int, int, list]]:
    """(view, other view, for each image its pairs of cells), by feature and by location, in both directions."""
    cells = cells_of(outputs)
    boxes, flips = BOXES.tolist(), FLIPS.tolist()
    at = [[places(boxes[v][n], flips[v][n], *SHAPES[v]) for n in range(N)] for v in range(3)]
    found = []
    for i, j in PAIRS:
        for a, b, count in ((i, j, 2), (j, i, 3)):
            found.append((a, b, [by_feature(cells[a][n], cells[b][n]) for n in range(N)]))
            found.append((a, b, [by_location(at[a][n], at[b][n], count) for n in range(N)]))
    return found


def cells_of(outputs) -> list:
    return [each.flatten(1, 2).tolist() for each in (*outputs["maps"], *outputs["crops"])]


def criterion(a: list, b: list) -> float:
    """VICReg of the k-th matches of all images, `a[image][k]` being a cell; the mean over k."""
    total = 0.0
    for k in range(len(a[0])):
        one, other = [image[k] for image in a], [image[k] for image in b]
        total += 3.0 * agreement(one, other)
        total += 5.0 * (variance_term(one) + variance_term(other)) / 2
        total += 0.7 * (covariance_term(one) + covariance_term(other)) / 2
    return total / len(a[0])


def loss(outputs, targets) -> float:
    z, cells = outputs["z"].tolist(), cells_of(outputs)
    local = 0.0
    for a, b, found in matches(outputs):
        one = [[cells[a][n][cell] for cell, _ in found[n]] for n in range(N)]
        other = [[cells[b][n][partner] for _, partner in found[n]] for n in range(N)]
        local += criterion(one, other) / 2 / len(PAIRS)
    whole = 3.0 * sum(agreement(z[i], z[j]) for i, j in PAIRS) / len(PAIRS)
    whole += 5.0 * sum(variance_term(view) for view in z) / 3
    whole += 0.7 * sum(covariance_term(view) for view in z) / 3
    return 0.6 * whole + 0.4 * local
