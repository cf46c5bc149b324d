"""SimSiam, eq. 4: half of each direction."""

from gessl.methods.simsiam import SimSiam
from tests.methods.oracles import N, cosine, draw, pairs

METHOD = SimSiam(dim=5, bottleneck=3)
BLIND = ("z",)


def case(kind: str):
    p = pairs(kind)
    target = p.flip(0) if kind == "aligned" else draw("target", *p.shape)
    return {"p": p, "z": draw("z", *p.shape)}, {"z": target}


def loss(outputs, targets) -> float:
    p, target = outputs["p"], targets["z"]
    return sum(-cosine(p[v, i], target[1 - v, i]) / 2 for v in range(2) for i in range(N)) / N
