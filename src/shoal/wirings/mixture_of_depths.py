"""Mixture of depths: at each layer only the places that its router scores highest go through it.

    x_t <- x_t + s_t * f_i(the chosen places)_t        s = sigmoid( router_i(norm x) ),  for the `capacity` largest s
    x_t <- x_t                                         for the others

The chosen places of a row, in their order, are all that the layer sees: attention reads among them alone. The layer is
given them as one row of places, so it must be one that reads rows, and not a convolution over a grid; a context with
something for each place (a mask) fits only where all are chosen. To choose the largest of all places is not causal: a
place is let through or not by what comes behind it.

Shapes   x: (batch, *places, dim) throughout;  a layer is given (batch, chosen, dim), and x itself where all are chosen
Cost     dim multiply-adds a place and layer, dim + 1 weights a layer; a layer's own for the chosen places
Exact when capacity = 1 and every router gives plus infinity: the residual net;  minus infinity: the identity
Papers   router-tuning-a-simple-and-effective
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Branch, MakeLinear, Wiring
from shoal.core.errors import BadSetting


class MixtureOfDepths(Wiring):
    """Settings: `capacity`, the share of the places that go through a layer, rounded up."""

    tiny = {"capacity": 1.0}  # fewer places fit neither a grid's convolution nor a mask

    def __init__(self, dim: int, depth: int, linear: MakeLinear, *, capacity: float = 0.5) -> None:
        super().__init__(dim, depth)
        if not 0 < capacity <= 1:
            raise BadSetting(f"wiring mixture_of_depths: capacity={capacity} is no share; give more than 0, at most 1")
        self.capacity = capacity
        self.routers = nn.ModuleList(linear(dim, 1) for _ in range(depth))

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        places = math.prod(x.shape[1:-1])
        chosen = math.ceil(self.capacity * places)
        for router, layer in zip(self.routers, layers, strict=True):
            score = router(F.layer_norm(x, (self.dim,))).sigmoid()
            if chosen == places:
                x = x + score * layer(x)
                continue
            row, score = x.flatten(1, -2), score.flatten(1, -2)
            where = score.topk(chosen, dim=1).indices.sort(dim=1).values
            wide = where.expand(-1, -1, self.dim)
            added = score.gather(1, where) * layer(row.gather(1, wide))
            x = row.scatter_add(1, wide, added.to(row.dtype)).view(x.shape)
        return x
