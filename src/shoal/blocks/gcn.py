"""GCN: a node's row becomes the weighted mean of its neighbours' and its own, behind an activation; then one matrix.

    y = map( S^hops dropout(act x) )        S = D^-1/2 (A + I) D^-1/2

Activation first, so that a stream passes it by: in plain wiring, with a map before the first layer, it is the usual
stack of graph convolutions.

Shapes   x: (nodes, *places, dim);  y: (nodes, *places, out)
Cost     dim * out multiply-adds a node, as many weights; hops * dim multiply-adds an edge
Exact when hops = 0: a layer of an MLP, every node for itself
Papers   evaluating-deep-graph-neural-networks
"""

from __future__ import annotations

from torch import Tensor

from shoal.blocks._graphs import checked, dropped, propagated
from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear


class GCN(Block):
    """Settings: `hops`, how far a layer propagates; `act`, the activation's name; `dropout`, the share left out in
    training. Context: `edges`, or `adjacency`, made of them once."""

    outlets = ("map",)

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        out: int,
        *,
        hops: int = 1,
        act: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        checked("gcn", hops, dropout)
        self.hops, self.dropout, self.act = hops, dropout, activation(act)
        self.map = linear(dim, out)

    def forward(self, x: Tensor, *, edges: Tensor | None = None, adjacency: Tensor | None = None) -> Tensor:
        x = dropped(self.act(x), self.dropout, self.training)
        return self.map(propagated(x, self.hops, edges, adjacency))
