"""Projection and prediction heads."""

from itertools import pairwise

from torch import nn


def mlp(*widths: int, norm: bool = True, norm_last: bool = False, bias_last: bool = True) -> nn.Sequential:
    """Linear-BatchNorm-ReLU blocks through `widths`; the last Linear stands alone.

    Args:
        widths: input, hidden and output widths.
        norm: False leaves the BatchNorms out.
        norm_last: put a BatchNorm without scale and shift after the last Linear (SimSiam's projector).
        bias_last: False leaves out the last Linear's bias. A loss that standardises z over the batch, or a predictor
            after a BatchNorm, is blind to that bias; π, which compares z's directions, is not, so GeSSL would move it.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        # a bias before a BatchNorm would have no effect
        layers += [nn.Linear(before, after, bias=not norm), *([nn.BatchNorm1d(after)] if norm else []), nn.ReLU()]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=bias_last and not norm_last))
    if norm_last:
        layers.append(nn.BatchNorm1d(widths[-1], affine=False))
    return nn.Sequential(*layers)
