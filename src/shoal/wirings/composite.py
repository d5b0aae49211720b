"""Composite: several backbones of equal depth side by side, each fed at every level by the one before it.

    x_{k,l} = y + f_{k,l}(y),    y = x_{k,l-1} + join_{k,l}( x_{k-1,l} )        k: backbone, l: level;  x_{k,0} = x
    join(z) = act( norm( W z ) )

The first backbone is a residual net and reads nobody; the last is the one that leaves. What is said here of the
connection is its common form, adjacent and level by level. Where the backbones do not divide the depth the first ones
are one layer shorter, and lack their lowest level.

Shapes   x: (batch, *places, dim) throughout
Cost     dim^2 multiply-adds a place for each join, as many weights and their norms'
Exact when backbones = 1: the residual net
Papers   cbnet-a-composite-backbone-network-architecture
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from shoal.core.base import Branch, MakeLinear, MakeNorm, Wiring
from shoal.core.errors import BadSetting
from shoal.wirings._node import Node


class Composite(Wiring):
    """Settings: `backbones`, at most one a layer; `act`, the activation of a join."""

    tiny = {"act": "gelu"}

    def __init__(
        self,
        dim: int,
        depth: int,
        linear: MakeLinear,
        norm: MakeNorm,
        *,
        backbones: int = 2,
        act: str = "relu",
    ) -> None:
        super().__init__(dim, depth)
        if backbones < 1:
            raise BadSetting(f"wiring composite: backbones={backbones} hold no layer; give at least 1")
        count = min(backbones, depth)
        self.depths = [(depth + index) // count for index in range(count)]
        joins = sum(self.depths[:-1])
        self.joins = nn.ModuleList(Node(dim, dim, linear, norm, act) for _ in range(joins))

    def reads(self) -> list[set[int]]:
        rows: list[set[int]] = []
        before: list[set[int]] = []
        for depth in self.depths:
            stream, levels = {0}, []
            for level in range(depth):
                below = level - (depth - len(before))
                stream = stream | (before[below] if before and below >= 0 else set())
                rows.append(stream)
                stream = stream | {len(rows)}
                levels.append(stream)
            before = levels
        return [*rows, before[-1]]

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        left, joins = iter(layers), iter(self.joins)
        before: list[Tensor] = []
        for depth in self.depths:
            stream, levels = x, []
            for level in range(depth):
                below = level - (depth - len(before))
                if before and below >= 0:
                    stream = stream + next(joins)(before[below])
                stream = stream + next(left)(stream)
                levels.append(stream)
            before = levels
        return before[-1]
