"""Propagate: the rows of neighbouring nodes averaged, some hops in a row; no matrix.

    y = S^hops dropout(act x) + b        S = D^-1/2 (A + I) D^-1/2

The step between the matrices of a graph convolution: a graph net has two depths, how far it propagates and how often
it transforms, and this is the first of them alone. Without edges S is the identity, so that rows which were propagated
beforehand may be given instead of the graph.

Shapes   x, y: (nodes, *places, dim)
Cost     hops * dim multiply-adds an edge; dim weights with a bias, else none
Exact when hops = 0: the activation alone
Papers   evaluating-deep-graph-neural-networks
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shoal.blocks._graphs import checked, dropped, propagated
from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear


class Propagate(Block):
    """Settings: `hops`; `act`, the activation's name; `dropout`, the share left out in training; `bias`, added behind.
    Context: `edges`, or `adjacency`, made of them once."""

    known = {"zero_in_zero_out": "it has no matrix that could be zero: without edges every node keeps its own row"}
    tiny = {"bias": True}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        *,
        hops: int = 1,
        act: str = "identity",
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        checked("propagate", hops, dropout)
        self.hops, self.dropout, self.act = hops, dropout, activation(act)
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor, *, edges: Tensor | None = None, adjacency: Tensor | None = None) -> Tensor:
        x = dropped(self.act(x), self.dropout, self.training)
        y = propagated(x, self.hops, edges, adjacency)
        return y if self.bias is None else y + self.bias
