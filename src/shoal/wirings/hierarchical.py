"""Hierarchical: trees of layers; each tree's root merges its subtrees and its last two layers.

    T_n(x) = node(T_{n-1}(x), ..., T_1(...), a, b)        each subtree reads what the one before it gave
    a = B(the last of them),  b = B(a),  B(x) = x + f(x);        T_0(x) = B(x)
    node(...) = act( norm( W [...] ) )

A tree of height n holds 2^n layers. Another depth is cut greedily, 11 = 8 + 2 + 1, and the trees stand in a row.

Shapes   x: (batch, *places, dim) throughout
Cost     (n + 1) * dim^2 multiply-adds a place for the root of a tree of height n, as many weights and its norm's
Exact when depth = 1: the residual net;  depth = 2: node(a, b), as `iterative` at depth 2
Papers   deep-layer-aggregation
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from shoal.core.base import Branch, MakeLinear, MakeNorm, Wiring
from shoal.wirings._node import Node


class Hierarchical(Wiring):
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
        self.heights = [power for power in reversed(range(depth.bit_length())) if depth >> power & 1]
        roots = [root for height in self.heights for root in _roots(height)]
        self.nodes = nn.ModuleList(Node((root + 1) * dim, dim, linear, norm, act, residual) for root in roots)

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        left, nodes = iter(layers), iter(self.nodes)
        for height in self.heights:
            x = _tree(height, x, left, nodes)
        return x


def _roots(height: int) -> list[int]:
    """The heights of a tree's roots in the order they are reached: those of its subtrees, then its own."""
    if height == 0:
        return []
    return [*(root for below in range(height - 1, 0, -1) for root in _roots(below)), height]


def _tree(height: int, x: Tensor, layers: Iterator[Branch], nodes: Iterator[nn.Module]) -> Tensor:
    """T_height(x), taking its layers and nodes from what is left of them."""
    if height == 0:
        return x + next(layers)(x)
    given = []
    for below in range(height - 1, 0, -1):
        x = _tree(below, x, layers, nodes)
        given.append(x)
    for _ in range(2):
        x = x + next(layers)(x)
        given.append(x)
    merged: Tensor = next(nodes)(*given)
    return merged
