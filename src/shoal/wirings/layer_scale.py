"""Layer scale: a residual stream; what a layer adds is weighted a channel, by weights that start near zero.

    x <- x + scale_i * f_i(x)        scale_i: a learned number a channel

A deep stack starts out as almost the identity, and opens its layers as they become useful.

Shapes   x: (batch, *places, dim) throughout;  scale_i: (dim,)
Exact when scale_i goes into the rows of the layer's last matrix: the residual net
Papers   going-deeper-with-image-transformers
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Value


class LayerScale(Wiring):
    """Settings: `init`, where the weights start: 0.1 up to depth 18, 1e-5 up to 24, 1e-6 deeper, where not said. Depth
    counts the layers of this stage; with attention and MLP as two layers it is twice that of the paper."""

    def __init__(self, dim: int, depth: int, *, init: float | None = None) -> None:
        super().__init__(dim, depth)
        if init is None:
            init = 0.1 if depth <= 18 else 1e-5 if depth <= 24 else 1e-6
        if not math.isfinite(init):
            raise BadSetting(f"wiring layer_scale: init={init} is no finite number; 0.1 and 1e-6 are usual")
        self.scales = nn.ParameterList(nn.Parameter(torch.full((dim,), float(init))) for _ in range(depth))

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def without(self, index: int) -> dict[str, Value]:
        raise Refused(f"wiring layer_scale: layer {index} has learned scales, which would stay when the layer goes")

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        for scale, layer in zip(self.scales, layers, strict=True):
            x = x + scale * layer(x)
        return x
