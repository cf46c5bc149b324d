"""ReSSL: cross-entropy of the student's similarities to the queue (T 0.3) with the teacher's (T 0.2)."""

import math

from gessl.methods.ressl import ReSSL
from tests.methods.oracles import D, cosine, draw, pairs

METHOD = ReSSL(hidden=7, dim=D, queue=9, temperature=0.3, teacher_temperature=0.2)


def case(kind: str):
    z = pairs(kind)
    key, queue = z[1] if kind != "random" else draw("key", *z.shape[1:]), draw("queue", 9, D)
    key, queue = (rows / rows.norm(dim=1, keepdim=True) for rows in (key, queue))
    scores = (key @ queue.T / 0.2).exp()
    return {"z": z}, {"key": key, "queue": queue, "relation": scores / scores.sum(1, keepdim=True)}


def distribution(row, queue, temperature: float) -> list[float]:
    scores = [math.exp(cosine(row, other) / temperature) for other in queue]
    return [score / sum(scores) for score in scores]


def loss(outputs, targets) -> float:
    total = 0.0
    for query, key in zip(outputs["z"][0], targets["key"], strict=True):
        student, teacher = distribution(query, targets["queue"], 0.3), distribution(key, targets["queue"], 0.2)
        total -= sum(t * math.log(s) for s, t in zip(student, teacher, strict=True))
    return total / len(outputs["z"][0])
