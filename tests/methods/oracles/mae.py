"""MAE: mean squared error of the pixels of removed patches."""

from gessl.methods.mae import MAE
from tests.methods.oracles import D, N, draw

METHOD = MAE(width=4, depth=1)
BLIND = ("h", "z")
P = 7


def case(kind: str):
    patches = draw("patches", N, P, D)
    pixels = {
        "random": draw("pixels", 1, N, P, D),
        "aligned": patches[None].clone(),
        "near-collapsed": draw("one", 1, 1, 1, D) + 1e-3 * draw("noise", 1, N, P, D),
    }[kind]
    gone = (draw("gone", N, P) > -0.5).double()
    return {"h": draw("h", 1, N, D), "z": draw("z", 1, N, D), "pixels": pixels}, {"patches": patches, "gone": gone}


def loss(outputs, targets) -> float:
    total, removed = 0.0, 0
    for image in range(N):
        for patch in range(P):
            if targets["gone"][image, patch]:
                found, wanted = outputs["pixels"][0, image, patch], targets["patches"][image, patch]
                total += sum((float(a) - float(b)) ** 2 for a, b in zip(found, wanted, strict=True)) / D
                removed += 1
    return total / removed
