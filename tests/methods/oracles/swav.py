"""SwAV, eq. 2 and 6: cross-entropy of each view's code with the softmax of every other view's and crop's scores."""

import math

import torch

from gessl.methods.swav import SwAV
from tests.methods.oracles import D, N, cosine, draw, pairs

K, T = 4, 0.3
METHOD = SwAV(hidden=7, dim=D, prototypes=K, queue=0, temperature=T)
BLIND = ()
UNIT = ("prototypes",)


def case(kind: str):
    prototypes = draw("prototypes", K, D)
    prototypes = prototypes / prototypes.norm(dim=1, keepdim=True)
    codes = draw("codes", 2, N, K).softmax(-1)
    crops = draw("crops", 3, N, D) if kind == "random" else pairs(kind, 3)
    # held: what the prototypes are to stay at, and with which weight: not at all
    held = {"prototypes": draw("standing", K, D), "frozen": torch.zeros((), dtype=torch.float64)}
    return {"z": pairs(kind), "z_crops": crops, "prototypes": prototypes[None, None]}, {"codes": codes, **held}


def loss(outputs, targets) -> float:
    z = [*outputs["z"], *outputs["z_crops"]]
    prototypes = outputs["prototypes"][0, 0]
    total = 0.0
    for i, codes in enumerate(targets["codes"]):
        for j in range(len(z)):
            if i == j:
                continue
            for n in range(N):
                scores = [cosine(z[j][n], prototype) / T for prototype in prototypes]
                norm = sum(math.exp(score) for score in scores)
                total -= sum(
                    float(code) * math.log(math.exp(score) / norm) for code, score in zip(codes[n], scores, strict=True)
                )
    return total / N / (len(z) - 1) / 2
