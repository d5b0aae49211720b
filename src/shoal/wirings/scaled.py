"""Scaled: a residual stream to which every layer adds lambda times what it gives.

    x <- x + lambda f_i(x)

At lambda = 1 what depth n can give grows like (1 + c)^n. At 1 / n it stays below e^c; at 1 / sqrt(n) the variance stays
below e^(c^2) where the layers are independent. A learned lambda, one number a layer, that starts at 0 is SkipInit.

Shapes   x: (batch, *places, dim) throughout;  learned: a number a layer
Exact when lambda = 1: the residual net
Papers   on-residual-network-depth
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Value
from shoal.wirings._scale import Scale, scale_at


class Scaled(Wiring):
    """Settings: `scale`, lambda: a number, or `one` (1), `mean` (1 / depth), `root` (1 / sqrt(depth)); `learned`,
    whether each layer has a lambda of its own that starts there and learns."""

    tiny = {"learned": True}

    def __init__(self, dim: int, depth: int, *, scale: Scale = "root", learned: bool = False) -> None:
        super().__init__(dim, depth)
        self.scale = scale_at(scale, depth, "scaled")
        if self.scale == 0 and not learned:
            raise BadSetting("wiring scaled: scale=0 adds nothing for ever; say learned=true, or another scale")
        self.learned = nn.Parameter(torch.full((depth,), self.scale)) if learned else None

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def without(self, index: int) -> dict[str, Value]:
        if self.learned is not None:
            raise Refused(f"wiring scaled: layer {index} has a learned scale, which would stay when the layer goes")
        return {"scale": self.scale, "learned": False}

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        scales: Iterable[float | Tensor] = [self.scale] * self.depth if self.learned is None else self.learned
        for scale, layer in zip(scales, layers, strict=True):
            x = x + scale * layer(x)
        return x
