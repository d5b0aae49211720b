"""Iterative: a residual chain whose layers' streams are merged one by one, the shallowest first.

    x_i = x_{i-1} + f_i(x_{i-1});        a_1 = x_1,  a_i = node_i(a_{i-1}, x_i);        out = a_depth
    node(a, x) = act( norm( W [a, x] ) )

What the first layers found goes through all the nodes, so it is refined the most. The layers read the chain alone.

Shapes   x: (batch, *places, dim) throughout
Cost     (depth - 1) * 2 * dim^2 multiply-adds a place for the nodes, as many weights and their norms'
Exact when depth = 1: the residual net
Papers   deep-layer-aggregation
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from shoal.core.base import Branch, MakeLinear, MakeNorm, Wiring
from shoal.wirings._node import Node


class Iterative(Wiring):
    """Settings: `act`, the activation of a node; `residual`, whether a node adds the last it was given before it."""

    tiny = {"act": "gelu"}

    def __init__(
        self,
        dim: int,
        depth: int,
        linear: MakeLinear,
        norm: MakeNorm,
        *,
        act: str = "relu",
        residual: bool = False,
    ) -> None:
        super().__init__(dim, depth)
        self.nodes = nn.ModuleList(Node(2 * dim, dim, linear, norm, act, residual) for _ in range(depth - 1))

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        x = merged = x + layers[0](x)
        for node, layer in zip(self.nodes, layers[1:], strict=True):
            x = x + layer(x)
            merged = node(merged, x)
        return merged
