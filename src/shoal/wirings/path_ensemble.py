"""Path ensemble: a residual stack whose output weights each of the paths that sum to it.

    x_i = x_{i-1} + f_i(x_{i-1});        out = s_0 x_0 + sum_i s_i f_i(x_{i-1})

The layers read the stream without weights: cutting a path out of the final sum leaves all others as they were.

Shapes   x, out: (batch, *places, dim);  s_i: a number, or (dim,) where ``per_channel``
Exact when all s_i = 1: the residual net
Papers   revisiting-vision-transformer-from-the-view
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shoal.core.base import Branch, Wiring
from shoal.core.errors import Refused
from shoal.core.part import Value


class PathEnsemble(Wiring):
    """Settings: `per_channel`, whether a path has a weight for each channel, or one for all."""

    def __init__(self, dim: int, depth: int, *, per_channel: bool = False) -> None:
        super().__init__(dim, depth)
        size = dim if per_channel else 1
        self.weights = nn.ParameterList(nn.Parameter(torch.ones(size)) for _ in range(depth + 1))

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def without(self, index: int) -> dict[str, Value]:
        raise Refused(f"wiring path_ensemble: the path of layer {index} has a learned weight, which would stay")

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        first, *rest = self.weights
        out = first * x
        for weight, layer in zip(rest, layers, strict=True):
            given = layer(x)
            x, out = x + given, out + weight * given
        return out
