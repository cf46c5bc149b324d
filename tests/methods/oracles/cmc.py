"""CMC's noise-contrastive estimation: h = p / (p + K / n), p = exp(cosine / T) / Z, in both directions."""

import math

import torch

from gessl.methods.cmc import CMC
from tests.methods.oracles import D, N, draw

T, K, IMAGES = 0.3, 4, 11
METHOD = CMC(dim=D, negatives=K, temperature=T)
BLIND = ()


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


def case(kind: str):
    lightness, colour = unit(draw("l", 2, N, D)), unit(draw("ab", 2, N, D))
    bank = unit(draw("bank", 2, IMAGES, D))
    index = torch.tensor([[(3 * image + 2 * draws + 1) % IMAGES for draws in range(K + 1)] for image in range(N)])
    if kind == "aligned":  # every image's halves agree with each other and with its memories
        lightness = unit(draw("l", N, D)).expand(2, N, D).clone()
        colour = lightness.clone()
        bank[:, index[:, 0]] = lightness
    elif kind == "near-collapsed":
        one = draw("one", D)
        lightness, colour = unit(one + 1e-3 * draw("l", 2, N, D)), unit(one + 1e-3 * draw("ab", 2, N, D))
        bank = unit(one + 1e-3 * draw("bank", 2, IMAGES, D))
    log_z = torch.tensor([2.5, 3.5], dtype=torch.float64)
    return {"z": torch.cat([lightness, colour], -1)}, {"bank": bank, "index": index, "log_z": log_z}


def loss(outputs, targets) -> float:
    total = 0.0
    for view in outputs["z"]:
        for image in range(N):
            lightness, colour = view[image, :D], view[image, D:]
            for query, other in ((lightness, 1), (colour, 0)):
                constant = math.exp(float(targets["log_z"][other]))
                for place, entry in enumerate(targets["index"][image]):
                    memory = targets["bank"][other, entry]
                    p = math.exp(float(query @ memory) / T) / constant
                    noise = K / IMAGES
                    total -= math.log(p / (p + noise)) if place == 0 else math.log(noise / (p + noise))
    return total / (2 * N)
