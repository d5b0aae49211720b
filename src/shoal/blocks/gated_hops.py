"""Gated hops: what a node hears at each distance, each let in as far as a gate says that all distances share.

    y = sum_k sigmoid(a . H_k + b) H_k        H_k = S^k x,  k = 0 .. hops;  a gate a node and a distance

Shapes   x, y: (nodes, *places, dim)
Cost     hops * dim multiply-adds an edge and (hops + 1) * dim a node;  dim + 1 weights, however many hops
Exact when hops = 0: x, scaled by its gate
Papers   towards-deeper-graph-neural-networks
"""

from __future__ import annotations

from torch import Tensor

from shoal.blocks._graphs import checked, propagated
from shoal.core.base import Block, MakeLinear


class GatedHops(Block):
    """Settings: `hops`, the farthest. Context: `edges`, or `adjacency`, made of them once."""

    known = {"zero_in_zero_out": "a gate of no weights is half open, and what it lets in has no matrix before it"}
    tiny = {"hops": 3}

    def __init__(self, dim: int, linear: MakeLinear, *, hops: int = 10) -> None:
        super().__init__()
        checked("gated_hops", hops, 0.0)
        self.hops = hops
        self.gate = linear(dim, 1)

    def forward(self, x: Tensor, *, edges: Tensor | None = None, adjacency: Tensor | None = None) -> Tensor:
        y = self.gate(x).sigmoid() * x
        for _ in range(self.hops):
            x = propagated(x, 1, edges, adjacency)
            y = y + self.gate(x).sigmoid() * x
        return y
