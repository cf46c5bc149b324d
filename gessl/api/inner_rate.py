"""`gessl.inner_rate`: the inner rate that a user's loss can bear at the module's present weights."""

import math

from torch import nn

from gessl.api._bound import Bound, Loss, Mini, engine_at_work, require_plain, tasks_of
from gessl.bilevel.curvature import largest_curvature
from gessl.bilevel.field import Field
from gessl.bilevel.settings import HIGHEST_RATE
from gessl.errors import UserError
from gessl.rng import generator


def inner_rate(module: nn.Module, loss: Loss, views: Mini) -> float:
    """α = 1/λ_max, with λ_max the largest curvature of the loss on a mini-batch: no direction overshoots.

    It takes some ten Hessian-vector products, as much time as two or three outer steps. Curvature moves as training
    goes: ask again from time to time, the pipeline does so eleven times a run (docs/science.md). The module is left as
    it was.

    Args:
        module, loss, views: as of `gessl.step`, of one mini-batch.

    Raises:
        UserError: a bad argument, or the loss curves upwards in no direction here, so that no rate follows.
    """
    require_plain(module, loss)
    tasks = tasks_of(views, loss)
    if len(tasks) > 1:
        raise UserError(f"views: {len(tasks)} mini-batches; give the views of one")
    bound = Bound(module, loss, "float32", twice=True)
    with engine_at_work(module, "unroll"):
        params, buffers, state = bound.variables
        point = Field(bound, buffers, state, tasks[0]).at(params, twice=True)
        found = largest_curvature(point, tuple(params), generator(0, "curvature"))
    if math.isnan(found.largest):
        raise UserError("loss: its curvature is not finite; check the weights and the views")
    if found.largest <= 0:
        raise UserError(
            f"loss: curves upwards in no direction here (λ_max = {found.largest:.3g}), so no rate follows; give "
            "inner_lr a number, and ask again after some steps"
        )
    return min(1 / found.largest, HIGHEST_RATE)
