"""SimCLR, eq. 1 and the sum below it."""

import math

from gessl.methods.simclr import SimCLR
from tests.methods.oracles import cosine, pairs

METHOD = SimCLR(hidden=7, dim=5, temperature=0.3)


def case(kind: str):
    return {"z": pairs(kind)}, {}


def loss(outputs, targets) -> float:
    rows = [row for view in outputs["z"] for row in view]
    count, total = len(outputs["z"][0]), 0.0
    for i, row in enumerate(rows):
        positive = rows[(i + count) % (2 * count)]
        others = sum(math.exp(cosine(row, other) / 0.3) for k, other in enumerate(rows) if k != i)
        total -= math.log(math.exp(cosine(row, positive) / 0.3) / others)
    return total / len(rows)
