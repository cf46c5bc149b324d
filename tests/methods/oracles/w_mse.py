"""W-MSE with Cholesky by hand: three views, two overlapping slices of five of the six images, three dimensions."""

import torch

from gessl.methods.w_mse import WMSE
from tests.methods.oracles import cosine, pairs

DIM = 3
METHOD = WMSE(size=5, iterations=2, hidden=7, dim=DIM)


def case(kind: str):
    slices = torch.tensor([[0, 3, 1, 5, 2], [3, 1, 5, 2, 4], [5, 4, 3, 2, 1], [4, 3, 2, 1, 0]])
    return {"z": pairs(kind, 3)[..., :DIM]}, {"slices": slices}


def cholesky(matrix: list[list[float]]) -> list[list[float]]:
    lower = [[0.0] * DIM for _ in range(DIM)]
    for i in range(DIM):
        for j in range(i + 1):
            rest = matrix[i][j] - sum(lower[i][k] * lower[j][k] for k in range(j))
            lower[i][j] = rest**0.5 if i == j else rest / lower[j][j]
    return lower


def whiten(rows: list[list[float]]) -> list[list[float]]:
    count = len(rows)
    means = [sum(row[d] for row in rows) / count for d in range(DIM)]
    centred = [[row[d] - means[d] for d in range(DIM)] for row in rows]
    lower = cholesky([[sum(row[i] * row[j] for row in centred) / (count - 1) for j in range(DIM)] for i in range(DIM)])
    white = []
    for row in centred:
        solved: list[float] = []
        for i in range(DIM):  # lower · solved = row
            solved.append((row[i] - sum(lower[i][k] * solved[k] for k in range(i))) / lower[i][i])
        white.append(solved)
    return white


def loss(outputs, targets) -> float:
    views, distances = outputs["z"].tolist(), []
    for images in targets["slices"].tolist():
        white = [torch.tensor(whiten([view[n] for n in images]), dtype=torch.float64) for view in views]
        for one, other in ((0, 1), (0, 2), (1, 2)):
            distances += [2 - 2 * cosine(a, b) for a, b in zip(white[one], white[other], strict=True)]
    return sum(distances) / len(distances)
