"""Why a step broke, in one line a user can act on."""

import math
from typing import Any

from gessl.training.settings import Science

# an inner loop that raises the base loss by half, or leaves nothing of the weights, does not adapt
CLIMB = 0.5
SHIFT = 1.0


def explain(losses: list[list[float]], norms: list[float], science: Science) -> str:
    """What is not finite in a step, and what to change.

    Args:
        losses: of each task, the base loss along its path: θ_0 … θ_K, then the target's steps.
        norms: of each task's gradient.
        science: the run's settings.
    """
    gessl = science.gessl
    for task, (path, norm) in enumerate(zip(losses, norms, strict=True)):
        where = f"task {task + 1} of {len(losses)}"
        walked = " → ".join(f"{loss:.4g}" for loss in path)
        broken = next((index for index, loss in enumerate(path) if not math.isfinite(loss)), None)
        if broken == 0:
            return f"{where}: the base loss at θ is not finite; lower train.lr ({science.train.lr}) or check the data"
        if broken is not None and gessl:
            kind = "inner" if broken <= gessl.inner_steps else "target"
            number = broken if kind == "inner" else broken - gessl.inner_steps
            return (
                f"{where}: the inner loop diverges: {kind} step {number} led to a base loss that is not finite "
                f"({walked}); lower gessl.inner_lr ({gessl.inner_lr})"
            )
        if not math.isfinite(norm):
            what = "hyper-gradient" if gessl else "gradient"
            advice = "lower gessl.inner_lr or raise gessl.temperature" if gessl else "lower train.lr"
            return f"{where}: the {what} is not finite though its losses are ({walked}); {advice}"
    return "the mean gradient overflows; lower train.lr"


def diverging(rows: list[dict[str, Any]]) -> str | None:
    """A warning if the inner loop ran away over a run, though in finite numbers, from the rows of the metrics file.

    After a BatchNorm the loss does not tell: it does not see how long the weights have become.
    """
    names = ("ssl_loss", "ssl_loss_adapted", "inner_shift")
    seen = [row for row in rows if all(row.get(name) is not None for name in names)]
    if not seen:
        return None
    before, after, shift = (sum(row[name] for row in seen) / len(seen) for name in names)
    signs = []
    if after - before > CLIMB * abs(before):
        signs.append(f"takes the base loss from {before:.4g} at θ to {after:.4g} at θ_K")
    if shift > SHIFT:
        signs.append(f"moves the weights by {shift:.3g} times their own length")
    if not signs:
        return None
    return f"warning: the inner loop diverges: on average it {' and '.join(signs)}; gessl.inner_lr is too large"
