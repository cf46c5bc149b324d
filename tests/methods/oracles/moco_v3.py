"""MoCo v3, algorithm 1: 2T · (ctr(q1, k2) + ctr(q2, k1)), the batch as negatives."""

import math

from gessl.methods.moco_v3 import MoCoV3
from tests.methods.oracles import D, cosine, draw, pairs

METHOD = MoCoV3(hidden=7, dim=D, temperature=0.3)
BLIND = ("z",)


def case(kind: str):
    p = pairs(kind)
    key = p if kind != "random" else draw("key", *p.shape)
    return {"p": p, "z": draw("blind", *p.shape)}, {"key": key / key.norm(dim=-1, keepdim=True)}


def loss(outputs, targets) -> float:
    total = 0.0
    for queries, keys in ((outputs["p"][0], targets["key"][1]), (outputs["p"][1], targets["key"][0])):
        for i, query in enumerate(queries):
            scores = [math.exp(cosine(query, key) / 0.3) for key in keys]
            total -= math.log(scores[i] / sum(scores)) / len(queries)
    return 2 * 0.3 * total
