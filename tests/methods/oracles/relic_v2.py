"""ReLICv2: two large views and a small crop, three negatives each; all pairs of an online and a large teacher view."""

import math

import torch

from gessl.methods.relic_v2 import ReLICv2
from tests.methods.oracles import D, N, cosine, draw, pairs

METHOD = ReLICv2(hidden=7, dim=D, negatives=3, temperature=0.3, contrastive=0.4, invariance=2.0)


def case(kind: str):
    views = pairs(kind, 3)
    teacher = views[:2] if kind != "random" else draw("teacher", 2, N, D)
    negatives = torch.stack([(i + torch.tensor([1, 2, 4])) % N for i in range(N)])
    targets = {"z": teacher / teacher.norm(dim=-1, keepdim=True), "negatives": negatives}
    return {"z": views[:2], "small": views[2:]}, targets


def likelihood(anchor, positive, negatives) -> list[float]:
    scores = [math.exp(cosine(anchor, other) / 0.3) for other in (positive, *negatives)]
    return [score / sum(scores) for score in scores]


def loss(outputs, targets) -> float:
    total, terms = 0.0, 0
    for online in (*outputs["z"], *outputs["small"]):
        for teacher in targets["z"]:
            for i, chosen in enumerate(targets["negatives"].tolist()):
                p = likelihood(online[i], teacher[i], [teacher[k] for k in chosen])
                q = likelihood(teacher[i], online[i], [online[k] for k in chosen])
                divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
                entropy = -sum(a * math.log(a) for a in p)  # whose gradient the paper stops
                total += -0.4 * math.log(p[0]) + 2 * (divergence + entropy)
                terms += 1
    return total / terms
