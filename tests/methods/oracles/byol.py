"""BYOL, eq. 2 and its swap, averaged over images."""

from gessl.methods.byol import BYOL
from tests.methods.oracles import N, cosine, draw, pairs

METHOD = BYOL(hidden=7, dim=5)
BLIND = ("z",)


def case(kind: str):
    p = pairs(kind)
    target = p.flip(0) if kind == "aligned" else draw("target", *p.shape)
    return {"p": p, "z": draw("z", *p.shape)}, {"z": target}


def loss(outputs, targets) -> float:
    p, target = outputs["p"], targets["z"]
    return sum(2 - 2 * cosine(p[v, i], target[1 - v, i]) for v in range(2) for i in range(N)) / N
