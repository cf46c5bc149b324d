"""MEC, eq. 3, with the official code's factor 1/λ per image in place of (N + D)/2; half of each direction."""

import torch

from gessl.methods.mec import MEC
from tests.methods.oracles import D, N, cosine, draw, pairs

METHOD = MEC(dim=D, bottleneck=3, distortion=4.0)
BLIND = ("z",)


def case(kind: str):
    p = pairs(kind)
    target = p.flip(0) if kind == "aligned" else pairs(kind).flip(1)
    targets = {"z": target, "warmup_scale": torch.tensor(1.5, dtype=torch.float64)}
    return {"p": p, "z": draw("z", *p.shape)}, targets


def loss(outputs, targets) -> float:
    inverse = 1.5 * N * 4.0 / D  # 1/λ = N ε² / D, stretched in the warm-up
    total = 0.0
    for view in range(2):
        p, z = outputs["p"][view], targets["z"][1 - view]
        c = torch.tensor([[cosine(p[i], z[j]) / inverse for j in range(N)] for i in range(N)], dtype=torch.float64)
        powers = [float(torch.linalg.matrix_power(c, k).trace()) for k in (1, 2, 3, 4)]
        total += powers[0] - powers[1] / 2 + powers[2] / 3 - powers[3] / 4
    return -total / 2 * inverse / N
