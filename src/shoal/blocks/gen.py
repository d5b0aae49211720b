"""GEN: positive messages gathered by a mean whose sharpness is learned, sized by the node's own row; then an MLP.

    m_uv = relu(z_u) + 1e-7,  z = dropout(act x);    m_v = aggregate over u -> v, and v itself
    y_v = down( relu( up( z_v + s |z_v| m_v / |m_v| ) ) )
    softmax: sum of softmax(t m) m, t = 0 the mean, t = inf the largest;    power: (mean m^t)^(1/t), t = 1 the mean

t and s are numbers that are learned, from 1 on. In residual wiring, with the norm and the activation before it, it is
the layer of deep stacks.

Shapes   x: (nodes, *places, dim);  y: (nodes, *places, out);  within: (nodes, *places, hidden)
Cost     (dim + out) * hidden multiply-adds a node, as many weights; dim multiply-adds an edge
Papers   deepergcn-all-you-need-to-train
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.blocks._graphs import aggregation, checked, dropped, ends_of
from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear

EPS = 1e-7  # added to messages, so that none is zero


class GEN(Block):
    """Settings: `hidden`, units of the MLP (2 * dim where not said); `aggregate`: softmax or power; `act`, the
    activation's name; `dropout`, the share left out in training. Context: `edges`."""

    widths = {"hidden": ("up:out", "down:in")}
    outlets = ("down",)
    sizes = {"hidden": lambda dim, _: 2 * dim}
    tiny = {"hidden": 12}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        out: int,
        *,
        hidden: int | None = None,
        aggregate: str = "softmax",
        act: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        checked("gen", 1, dropout)
        hidden = self.size("hidden", hidden, out)
        self.aggregate, self.act, self.dropout = aggregation(aggregate), activation(act), dropout
        self.sharpness, self.scale = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
        self.up, self.down = linear(dim, hidden), linear(hidden, out)

    def forward(self, x: Tensor, *, edges: Tensor | None = None) -> Tensor:
        z = dropped(self.act(x), self.dropout, self.training)
        begin, end = ends_of(edges, z)
        heard = self.aggregate((z.relu() + EPS)[begin], end, z.shape[0], self.sharpness)
        sized = F.normalize(heard, dim=-1) * z.norm(dim=-1, keepdim=True)
        return self.down(self.up(z + self.scale * sized).relu())
