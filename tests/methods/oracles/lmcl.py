"""LMCL: NT-Xent over 2N rows, and the mean over their pairs of |min((D - near)(D - far), 0)|, D = (1 - cos)/2."""

import math

from gessl.methods.lmcl import LMCL
from tests.methods.oracles import cosine, pairs

METHOD = LMCL(hidden=7, dim=5, temperature=0.3, near=0.3, far=0.6, weight=4.0)


def case(kind: str):
    return {"z": pairs(kind)}, {}


def loss(outputs, targets) -> float:
    rows = [*outputs["z"][0], *outputs["z"][1]]
    count, contrast, margin = len(rows), 0.0, 0.0
    for i, row in enumerate(rows):
        scores = {k: math.exp(cosine(row, other) / 0.3) for k, other in enumerate(rows) if k != i}
        contrast -= math.log(scores[(i + count // 2) % count] / sum(scores.values()))
        for other in rows:
            distance = (1 - cosine(row, other)) / 2
            margin += abs(min((distance - 0.3) * (distance - 0.6), 0))
    return contrast / count + 4 * margin / count**2
