"""NNCLR, algorithm 1: L(NN(z1), p2)/2 + L(NN(z2), p1)/2, the neighbours given."""

import math

from gessl.methods.nnclr import NNCLR
from tests.methods.oracles import D, cosine, draw, pairs

METHOD = NNCLR(hidden=7, dim=D, predictor=6, queue=9, temperature=0.3)
BLIND = ("z",)


def case(kind: str):
    p = pairs(kind)
    neighbour = p if kind != "random" else draw("neighbour", *p.shape)
    return {"p": p, "z": draw("z", *p.shape)}, {"neighbour": neighbour / neighbour.norm(dim=-1, keepdim=True)}


def loss(outputs, targets) -> float:
    total = 0.0
    for view, other in ((0, 1), (1, 0)):
        for i, neighbour in enumerate(targets["neighbour"][view]):
            scores = [math.exp(cosine(neighbour, p) / 0.3) for p in outputs["p"][other]]
            total -= math.log(scores[i] / sum(scores)) / len(scores) / 2
    return total
