"""CPC v2, the objective of section 3.1 on a grid of 4 x 2 patches; contexts predict rows two and three further down."""

import math

import torch

from gessl.methods.cpc import CPC
from tests.methods.oracles import draw

METHOD = CPC(hidden=7, dim=3, scale=0.7)
BLIND = ()
IMAGES, ROWS, COLUMNS, D = 3, 4, 2, 3
PAIRS = [(0, 2), (1, 3), (0, 3)]  # context's row, predicted row: by distance, then by row


def case(kind: str):
    embedded = draw("embedded", 2, IMAGES, ROWS, COLUMNS, D)
    predicted = draw("predicted", 2, IMAGES, len(PAIRS), COLUMNS, D)
    if kind == "aligned":
        predicted = torch.stack([embedded[:, :, row] for _, row in PAIRS], 2)
    elif kind == "near-collapsed":
        embedded = draw("one", D) + 1e-3 * embedded
        predicted = draw("other", D) + 1e-3 * predicted
    return {"embedded": embedded, "predicted": predicted}, {}


def loss(outputs, targets) -> float:
    total, count = 0.0, 0
    for embedded, predicted in zip(outputs["embedded"], outputs["predicted"], strict=True):
        for image in range(IMAGES):
            for pair, (_, row) in enumerate(PAIRS):
                for column in range(COLUMNS):
                    guess = predicted[image, pair, column]
                    among = [
                        math.exp(0.7 * float(guess @ embedded[other, r, c]))
                        for other in range(IMAGES)
                        for r in range(ROWS)
                        for c in range(COLUMNS)
                    ]
                    right = math.exp(0.7 * float(guess @ embedded[image, row, column]))
                    total -= math.log(right / sum(among))
                    count += 1
    return total / count
