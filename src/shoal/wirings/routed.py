"""Routed: a linear router before each layer looks at the whole row and lets it through the layer or past it.

    x <- x + g_i * f_i(x)        g_i = 1 where router_i( mean over places of norm(x) ) >= 0, that is sigmoid >= 1/2

One decision a row and layer. The norm has no weights: the router's stand for its scale, the router's bias for its shift
(the published router has none, the norm before it has). All routers are open at first. Router tuning trains them alone:
freeze everything else. In training they multiply, and backward takes the sigmoid's slope (straight-through); the share
of open routers, times `cost`, comes on top of the loss: without it they stay open. In eval the rows that are not let
through do not go through the layer. A context with one row an example fits only where all are. The paper routes
attention and always runs the MLP behind it: routed[every=2](attention, mlp).

Shapes   x: (batch, *places, dim) throughout;  g: (batch,);  in eval a routed layer is given the open rows only
Cost     dim multiply-adds a row and router, dim + 1 weights a router
Exact when every router gives plus infinity: the residual net;  minus infinity: that of the other layers
Papers   router-tuning-a-simple-and-effective
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Branch, MakeLinear, Wiring
from shoal.core.errors import BadSetting
from shoal.wirings._gates import OpenShare, add_where_open, pooled, straight_through, to_open


class Routed(Wiring):
    """Settings: `every`: the first of so many layers has a router, the others always run; `cost` of all routers open,
    added to the loss."""

    def __init__(self, dim: int, depth: int, linear: MakeLinear, *, every: int = 1, cost: float = 0.01) -> None:
        super().__init__(dim, depth)
        if every < 1 or cost < 0:
            raise BadSetting(f"wiring routed: every={every}, cost={cost}; give at least 1 layer and no negative cost")
        self.every, self.cost, self.share = every, cost, OpenShare()
        self.routers = nn.ModuleList(to_open(dim, linear) for _ in range(0, depth, every))

    def auxiliary_loss(self) -> Tensor | None:
        return self.share.loss(self.cost)

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        opened = []
        for index, layer in enumerate(layers):
            router, behind = divmod(index, self.every)
            if behind:
                x = x + layer(x)
                continue
            logit = self.routers[router](pooled(F.layer_norm(x, (self.dim,)))).squeeze(-1)
            opened.append(straight_through(logit))
            x = add_where_open(x, layer, opened[-1], self.training)
        self.share.note(opened, self.training)
        return x
