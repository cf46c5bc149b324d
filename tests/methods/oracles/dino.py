"""DINO, eq. 3: cross-entropy of the teacher's output for each view with the student's for every other view and crop."""

import math

import torch

from gessl.methods.dino import DINO
from tests.methods.oracles import D, N, cosine, draw, pairs

K, T = 4, 0.3
METHOD = DINO(hidden=7, dim=D, prototypes=K, temperature=T)
BLIND = ()
UNIT = ("prototypes",)


def case(kind: str):
    layer = draw("last layer", K, D)
    teacher = draw("teacher", 2, N, K).softmax(-1)
    crops = draw("crops", 3, N, D) if kind == "random" else pairs(kind, 3)
    outputs = {"z": pairs(kind), "z_crops": crops, "prototypes": (layer / layer.norm(dim=1, keepdim=True))[None, None]}
    frozen = torch.tensor(0.0, dtype=torch.float64)
    return outputs, {"codes": teacher, "prototypes": draw("standing", K, D), "frozen": frozen}


def loss(outputs, targets) -> float:
    student = [*outputs["z"], *outputs["z_crops"]]
    total, terms = 0.0, 0
    for i, teacher in enumerate(targets["codes"]):
        for j, z in enumerate(student):
            if i != j:
                terms += 1
                total += sum(entropy(teacher[n], z[n], outputs["prototypes"][0, 0]) for n in range(N)) / N
    return total / terms


def entropy(teacher, z, layer) -> float:
    powers = [math.exp(cosine(z, row) / T) for row in layer]
    return -sum(float(p) * math.log(power / sum(powers)) for p, power in zip(teacher, powers, strict=True))
