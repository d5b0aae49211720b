"""Dual path: every layer adds to a residual part of the channels and puts new ones behind the dense part.

    (r, d) <- (r + o_r, [d, o_d])        where  [o_r, o_d] = f_i([r, d])

Shapes   layer i: dim + i * growth in, residual + growth out;  out: (batch, *places, dim + depth * growth), the
         residual part first
Exact when growth = 0 and residual = dim: the residual net;  residual = 0: the dense net
Papers   dual-path-networks
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting


class DualPath(Wiring):
    """Settings: `residual`, how many of the dim channels are the residual part (all where not said), the others begin
    the dense part; `growth`, channels that a layer puts behind it (dim / 16 where not said)."""

    tiny = {"residual": 5, "growth": 3}
    sizes = {"residual": lambda dim, _: dim, "growth": lambda dim, _: max(dim // 16, 1)}

    def __init__(self, dim: int, depth: int, *, residual: int | None = None, growth: int | None = None) -> None:
        super().__init__(dim, depth)
        self.residual = 0 if residual == 0 else self.size("residual", residual, dim)
        self.growth = 0 if growth == 0 else self.size("growth", growth, dim)
        if self.residual > dim:
            raise BadSetting(f"wiring dual_path: residual={residual} is more than width {dim}; give at most that")
        if not self.residual and not self.growth:
            raise BadSetting("wiring dual_path: residual=0 and growth=0: the layers give nothing; raise one of them")

    def ends(self) -> list[tuple[int, int]]:
        return [(self.dim + i * self.growth, self.residual + self.growth) for i in range(self.depth)]

    def out(self) -> int:
        return self.dim + self.depth * self.growth

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        size = self.residual
        for layer in layers:
            y = layer(x)
            x = torch.cat((x[..., :size] + y[..., :size], x[..., size:], y[..., size:]), dim=-1)
        return x
