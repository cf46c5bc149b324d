"""MoCo, eq. 1: one positive against the queue."""

import math

from gessl.methods.moco_v2 import MoCoV2
from tests.methods.oracles import D, cosine, draw, pairs

METHOD = MoCoV2(hidden=7, dim=D, queue=9, temperature=0.3)
BLIND = ()


def case(kind: str):
    z = pairs(kind)
    key = z[1] if kind != "random" else draw("key", *z.shape[1:])
    queue = draw("queue", 9, D)
    return {"z": z}, {"key": key / key.norm(dim=1, keepdim=True), "queue": queue / queue.norm(dim=1, keepdim=True)}


def loss(outputs, targets) -> float:
    total = 0.0
    for query, key in zip(outputs["z"][0], targets["key"], strict=True):
        positive = math.exp(cosine(query, key) / 0.3)
        negatives = sum(math.exp(cosine(query, other) / 0.3) for other in targets["queue"])
        total -= math.log(positive / (positive + negatives))
    return total / len(outputs["z"][0])
