"""Deep InfoMax, eq. 4: Jensen-Shannon estimator of local against global; infoNCE is in test_infomax."""

import math

from gessl.methods.dim import DIM
from tests.methods.oracles import D, N, draw

METHOD = DIM(units=D, hidden=7, dim=4)
BLIND = ()
PLACES = 3


def case(kind: str):
    whole, local = draw("global", 2, N, D), draw("local", 2, N, PLACES, D)
    if kind == "aligned":
        local = whole[:, :, None].expand(2, N, PLACES, D).clone()
    elif kind == "near-collapsed":
        local = draw("one", D) + 1e-3 * local
        whole = draw("one", D) + 1e-3 * whole
    return {"global": whole, "local": local}, {}


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def loss(outputs, targets) -> float:
    """E[sp(-T)] over pairs of one image + E[sp(T)] over pairs of two, minus the code's 2 log 2; mean over views."""
    total = 0.0
    for whole, local in zip(outputs["global"], outputs["local"], strict=True):
        joint, product = [], []
        for i in range(N):
            for j in range(N):
                for place in range(PLACES):
                    score = float(whole[i] @ local[j, place])
                    if i == j:
                        joint.append(softplus(-score))
                    else:
                        product.append(softplus(score))
        total += sum(joint) / len(joint) + sum(product) / len(product) - 2 * math.log(2)
    return total / len(outputs["global"])
