"""Dense: every layer reads all that came before it, side by side, and gives a few channels more.

    x_i = f_i([x, x_1, ..., x_{i-1}]);        out = [x, x_1, ..., x_depth]

Shapes   layer i: dim + i * growth in, growth out;  out: (batch, *places, dim + depth * growth)
Papers   densely-connected-convolutional-networks
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shoal.core.base import Branch, Wiring


class DenseWiring(Wiring):
    """Settings: `growth`, channels a layer gives (dim where not said)."""

    tiny = {"growth": 4}
    sizes = {"growth": lambda dim, _: dim}

    def __init__(self, dim: int, depth: int, *, growth: int | None = None) -> None:
        super().__init__(dim, depth)
        self.growth = self.size("growth", growth, dim)

    def ends(self) -> list[tuple[int, int]]:
        return [(self.dim + i * self.growth, self.growth) for i in range(self.depth)]

    def out(self) -> int:
        return self.dim + self.depth * self.growth

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        for layer in layers:
            x = torch.cat((x, layer(x)), dim=-1)
        return x
