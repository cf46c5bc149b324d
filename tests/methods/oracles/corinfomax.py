"""CorInfoMax: attraction and the log-determinants of the running covariances, by their eigenvalues."""

import math

import torch

from gessl.methods.corinfomax import CorInfoMax
from tests.methods.oracles import D, N, draw, pairs

ALPHA, FORGETTING, EPS = 7.0, 0.3, 1e-3
METHOD = CorInfoMax(hidden=7, dim=D, alpha=ALPHA, forgetting=FORGETTING, eps=EPS)


def case(kind: str):
    factors = draw("factors", 2, D, D)
    return {"z": pairs(kind)}, {"mean": 0.2 * draw("mean", 2, D), "covariance": factors @ factors.mT / D}


def loss(outputs, targets) -> float:
    z = torch.stack([torch.stack([row / row.norm() for row in view]) for view in outputs["z"]])
    attraction = sum(float((z[0, i, d] - z[1, i, d]) ** 2) for i in range(N) for d in range(D)) / (N * D)
    volume = 0.0
    for view in range(2):
        mean = FORGETTING * targets["mean"][view] + (1 - FORGETTING) * sum(z[view]) / N
        batch = sum(torch.outer(row - mean, row - mean) for row in z[view]) / N
        running = FORGETTING * targets["covariance"][view] + (1 - FORGETTING) * batch
        volume += sum(math.log(value + EPS) for value in torch.linalg.eigvalsh(running).tolist())
    return ALPHA * attraction - volume / D
