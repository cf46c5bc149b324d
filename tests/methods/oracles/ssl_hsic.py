"""SSL-HSIC: γ √HSIC(Z, Z) - HSIC(Z, Y) by sums over kernel matrices, which random features estimate.

HSIC(Z, Y): the mean kernel of two embeddings of one image, with M (M - 1) in the denominator, less the mean over all
pairs. HSIC(Z, Z): Tr(K H L H) over the squared number of embeddings, K and L two independent estimates of one kernel.
"""

import math

import torch

from gessl.methods.ssl_hsic import SSLHSIC
from tests.methods.oracles import D, N, draw, pairs

COUNT, SCALE, GAMMA = 9, 0.7, 2.0
METHOD = SSLHSIC(hidden=7, dim=D, frequencies=COUNT, gamma=GAMMA)
BLIND = ("z",)


def case(kind: str):
    p = pairs(kind)
    target = {"random": draw("target", 2, N, D), "aligned": p, "near-collapsed": p.flip(1)}[kind]
    targets = {"z": target, "scale": torch.tensor(SCALE, dtype=torch.float64)}
    targets |= {"frequencies": draw("w", 2, COUNT, D), "phases": draw("b", 2, COUNT)}
    return {"p": p, "z": draw("z", *p.shape)}, targets


def loss(outputs, targets) -> float:
    owners = [(i, rows[i] / rows[i].norm()) for rows in (*outputs["p"], *targets["z"]) for i in range(N)]
    n, m = len(owners), 4
    kernels = []
    for w, b in zip(targets["frequencies"], targets["phases"], strict=True):
        feature = [
            [math.sqrt(2 / COUNT) * math.cos(float(w[f] @ row) / SCALE + float(b[f])) for f in range(COUNT)]
            for _, row in owners
        ]
        kernels.append(
            [[math.fsum(x * y for x, y in zip(one, two, strict=True)) for two in feature] for one in feature]
        )
    same = math.fsum(kernels[0][r][s] for r in range(n) for s in range(n) if owners[r][0] == owners[s][0])
    dependence = same / (N * m * (m - 1)) - math.fsum(map(math.fsum, kernels[0])) / n**2
    centred = [centre(kernel) for kernel in kernels]
    spread = math.fsum(centred[0][r][s] * centred[1][r][s] for r in range(n) for s in range(n)) / n**2
    return GAMMA * math.sqrt(spread) - dependence


def centre(kernel: list[list[float]]) -> list[list[float]]:
    n = len(kernel)
    means = [math.fsum(row) / n for row in kernel]
    return [[kernel[r][s] - means[r] - means[s] + math.fsum(means) / n for s in range(n)] for r in range(n)]
