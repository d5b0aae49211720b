"""Graph attention: a node reads its neighbours and itself, each as much as a score of the two rows says.

    h = map z,  z = dropout(act x);    y_v = sum over u -> v of a_uv h_u        a head at a time
    a_uv = softmax over u -> v of leaky_relu( begins . h_u + ends . h_v )        every node is its own neighbour too

Shapes   x: (nodes, *places, dim);  y: (nodes, *places, out);  within: (nodes, *places, heads, out / heads)
Cost     dim * out multiply-adds a node, as many weights; out multiply-adds an edge
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.blocks._graphs import checked, dropped, ends_of, softmax_at, summed
from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear
from shoal.core.errors import BadSetting

SLOPE = 0.2  # of the leaky relu below zero


class GraphAttention(Block):
    """Settings: `heads`, into which the output is cut; `act`, the activation's name; `dropout`, the share left out in
    training, of rows and of scores. Context: `edges`."""

    outlets = ("map",)
    tiny = {"heads": 2}

    def __init__(
        self, dim: int, linear: MakeLinear, out: int, *, heads: int = 1, act: str = "relu", dropout: float = 0.0
    ) -> None:
        super().__init__()
        checked("graph_attention", 1, dropout)
        if heads < 1 or out % heads:
            raise BadSetting(f"block graph_attention: heads={heads} do not divide width {out}; choose a divisor")
        self.heads, self.dropout, self.act = heads, dropout, activation(act)
        self.map = linear(dim, out)
        self.begins, self.ends = (nn.Parameter(torch.empty(heads, out // heads)) for _ in range(2))
        for scores in (self.begins, self.ends):
            nn.init.xavier_uniform_(scores)

    def forward(self, x: Tensor, *, edges: Tensor | None = None) -> Tensor:
        rows = self.map(dropped(self.act(x), self.dropout, self.training)).unflatten(-1, (self.heads, -1))
        begin, end = ends_of(edges, x)
        scores = (rows * self.begins).sum(-1)[begin] + (rows * self.ends).sum(-1)[end]
        shares = softmax_at(F.leaky_relu(scores, SLOPE), end, x.shape[0])
        shares = dropped(shares, self.dropout, self.training)
        return summed(shares.unsqueeze(-1) * rows[begin], end, x.shape[0]).flatten(-2)
