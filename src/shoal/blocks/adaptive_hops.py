"""Adaptive hops: every node mixes what it hears at each distance, most where it is smooth but still itself; no weights.

    y_v = dropout( sum_k w_v(k) x^k_v )        x^k = (D^-1 (A + I))^k x,  w_v = softmax over k = 0 .. hops of NSL_v(k)
    NSL_v(k) = sim(x^k_v, x^0_v) * (1 - sim(x^k_v, x^inf_v)),  sim: the cosine;  x^inf: where the walk ends

Nothing is learned, so that it is worked out once and kept: without edges y = x, and rows that were mixed beforehand may
be given instead of the graph.

Shapes   x, y: (nodes, *places, dim)
Cost     hops * dim multiply-adds an edge, no weights
Exact when hops = 0: y = x
Papers   evaluating-deep-graph-neural-networks
"""

from __future__ import annotations

from torch import Tensor

from shoal.blocks._graphs import checked, dropped
from shoal.core.base import Block, MakeLinear
from shoal.core.graphs import adaptive


class AdaptiveHops(Block):
    """Settings: `hops`, the farthest; `dropout`, the share left out in training. Context: `edges`."""

    known = {"zero_in_zero_out": "it has no weights: without edges every node keeps its own row"}
    tiny = {"hops": 3}

    def __init__(self, dim: int, linear: MakeLinear, *, hops: int = 20, dropout: float = 0.0) -> None:
        super().__init__()
        checked("adaptive_hops", hops, dropout)
        self.hops, self.dropout = hops, dropout

    def forward(self, x: Tensor, *, edges: Tensor | None = None) -> Tensor:
        y = x if edges is None else adaptive(edges, x, self.hops)
        return dropped(y, self.dropout, self.training)
