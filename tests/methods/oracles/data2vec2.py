"""data2vec 2.0: squared errors of removed patches, and of the class token against their mean."""

import math

from gessl.methods.data2vec2 import Data2Vec2
from tests.methods.oracles import D, N, draw

METHOD = Data2Vec2(masks=2, cls=0.7)
BLIND = ("z",)
M, P = 2, 7


def case(kind: str):
    y = draw("y", N, P, D)
    noise = {"random": 1.0, "aligned": 0.0, "near-collapsed": 1e-3}[kind]
    start = {"random": 0.0, "aligned": 1.0, "near-collapsed": 0.0}[kind]
    p = start * y.expand(M, N, P, D) + noise * draw("p", M, N, P, D)
    h = start * y.mean(1).expand(M, N, D) + noise * draw("h", M, N, D)
    gone = (draw("gone", M, N, P) > -0.5).double()
    return {"h": h, "z": draw("z", M, N, D), "p": p}, {"y": y, "gone": gone}


def loss(outputs, targets) -> float:
    patches, removed, tokens = 0.0, 0, 0.0
    for mask in range(M):
        for image in range(N):
            wanted = targets["y"][image]
            mean = [float(sum(wanted[patch, d] for patch in range(P))) / P for d in range(D)]
            tokens += sum((float(outputs["h"][mask, image, d]) - mean[d]) ** 2 for d in range(D)) / math.sqrt(D)
            for patch in range(P):
                if targets["gone"][mask, image, patch]:
                    found = outputs["p"][mask, image, patch]
                    patches += sum(float(found[d] - wanted[patch, d]) ** 2 for d in range(D)) / math.sqrt(D)
                    removed += 1
    return patches / removed + 0.7 * tokens / (M * N)
