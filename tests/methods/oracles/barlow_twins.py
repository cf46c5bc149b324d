"""Barlow Twins, eq. 1 and 2, features standardised with the biased variance and eps 1e-5."""

from gessl.methods.barlow_twins import BarlowTwins
from tests.methods.oracles import D, N, pairs

METHOD = BarlowTwins(hidden=7, dim=D, off_diagonal=0.02)


def case(kind: str):
    return {"z": pairs(kind)}, {}


def loss(outputs, targets) -> float:
    z = outputs["z"]
    normed = (z - z.mean(1, keepdim=True)) / (z.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    total = 0.0
    for i in range(D):
        for j in range(D):
            c = sum(float(normed[0, n, i] * normed[1, n, j]) for n in range(N)) / N
            total += (1 - c) ** 2 if i == j else 0.02 * c**2
    return total
