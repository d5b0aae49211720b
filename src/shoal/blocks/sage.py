"""SAGE: a matrix for a node's own row, another for the mean of its neighbours' rows.

    y_v = own(z_v) + neighbours( mean over u -> v of z_u )        z = dropout(act x)

A node that no edge ends at reads a mean of zero.

Shapes   x: (nodes, *places, dim);  y: (nodes, *places, out)
Cost     2 * dim * out multiply-adds a node, as many weights; dim multiply-adds an edge
"""

from __future__ import annotations

import torch
from torch import Tensor

from shoal.blocks._graphs import averaged, checked, dropped
from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear
from shoal.core.graphs import check_edges


class SAGE(Block):
    """Settings: `act`, the activation's name; `dropout`, the share left out in training. Context: `edges`."""

    outlets = ("own", "neighbours")

    def __init__(self, dim: int, linear: MakeLinear, out: int, *, act: str = "relu", dropout: float = 0.0) -> None:
        super().__init__()
        checked("sage", 1, dropout)
        self.dropout, self.act = dropout, activation(act)
        self.own, self.neighbours = linear(dim, out), linear(dim, out, bias=False)

    def forward(self, x: Tensor, *, edges: Tensor | None = None) -> Tensor:
        z = dropped(self.act(x), self.dropout, self.training)
        if edges is None:
            return self.own(z) + self.neighbours(torch.zeros_like(z))
        check_edges(edges, len(z))
        begin, end = edges
        return self.own(z) + self.neighbours(averaged(z[begin], end, len(z)))
