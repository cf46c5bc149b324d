"""DeepCluster v2, eq. 8 of the SwAV paper per clustering: each view and crop is classified as its image's cluster."""

import math

import torch

from gessl.methods.deepcluster_v2 import DeepClusterV2
from tests.methods.oracles import D, N, cosine, draw, pairs

K, T = 4, 0.3
METHOD = DeepClusterV2(hidden=7, dim=D, prototypes=K, clusterings=2, temperature=T)
BLIND = ()


def case(kind: str):
    centroids = draw("centroids", 2, K, D)
    assignments = torch.tensor([[0, 3, 1, 2, 0, 1], [3, 3, -100, 0, -100, 2]])  # two images have no cluster yet
    crops = draw("crops", 3, N, D) if kind == "random" else pairs(kind, 3)
    prototypes = centroids / centroids.norm(dim=-1, keepdim=True)
    return {"z": pairs(kind), "z_crops": crops}, {"assignments": assignments, "prototypes": prototypes}


def loss(outputs, targets) -> float:
    z = [*outputs["z"], *outputs["z_crops"]]
    total = 0.0
    for prototypes, labels in zip(targets["prototypes"], targets["assignments"], strict=True):
        terms = []
        for view in z:
            for image, label in zip(view, labels.tolist(), strict=True):
                if label >= 0:
                    powers = [math.exp(cosine(image, prototype) / T) for prototype in prototypes]
                    terms.append(-math.log(powers[label] / sum(powers)))
        total += sum(terms) / len(terms)
    return total / 2
