"""VICReg, eq. 1 to 6, the variance term being the mean over both views as in the official code."""

from gessl.methods.vicreg import VICReg
from tests.methods.oracles import D, N, pairs

METHOD = VICReg(hidden=7, dim=D, invariance=3.0, variance=5.0, covariance=0.7)


def case(kind: str):
    return {"z": pairs(kind)}, {}


def covariance(rows: list[list[float]], i: int, j: int) -> float:
    count = len(rows)
    means = [sum(row[k] for row in rows) / count for k in (i, j)]
    return sum((row[i] - means[0]) * (row[j] - means[1]) for row in rows) / (count - 1)


def variance_term(rows: list[list[float]]) -> float:
    dim = len(rows[0])
    return sum(max(0.0, 1 - (covariance(rows, j, j) + 1e-4) ** 0.5) for j in range(dim)) / dim


def covariance_term(rows: list[list[float]]) -> float:
    dim = len(rows[0])
    return sum(covariance(rows, i, j) ** 2 for i in range(dim) for j in range(dim) if i != j) / dim


def agreement(a: list[list[float]], b: list[list[float]]) -> float:
    squares = [(x - y) ** 2 for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True)]
    return sum(squares) / len(squares)


def loss(outputs, targets) -> float:
    first, second = outputs["z"].tolist()
    assert len(first) == N
    spread = (variance_term(first) + variance_term(second)) / 2
    redundancy = covariance_term(first) + covariance_term(second)
    return 3.0 * agreement(first, second) + 5.0 * spread + 0.7 * redundancy
