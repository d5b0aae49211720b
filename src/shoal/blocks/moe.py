"""MoE: several small MLPs; a router picks the few that a place is given to, and weighs them.

    g = softmax(router x + noise), all but the `top` largest set to 0;    y = sum_e g_e W_e act(V_e x) + b

In training an expert takes at most ceil(capacity * top * places / experts) places of a batch: first choices before
second ones, then in the order of the batch. There rows of a batch do mix; in eval, without a limit, they do not. Noise,
too, is for training only. What the choices add to the loss, balance * experts * sum_e m_e p_e (m_e: e's share of them,
p_e: its mean gate before choosing), is `balance` where all are used alike.

All experts are computed everywhere, as one wide MLP whose units are gated: equal to computing only the chosen ones, of
one shape whatever is chosen, and one product of matrices where there would be many thin ones.

Shapes   x, y: (batch, *places, dim);  within: (batch, *places, experts * hidden)
Cost     experts * (2 * hidden + 1) * dim multiply-adds a place, as many weights (dense linears)
Exact when top = experts and there is room for all: the mixture by softmax
Papers   go-wider-instead-of-deeper
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.blocks._experts import gated
from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear
from shoal.core.errors import BadSetting


class MoE(Block):
    """Settings: `experts`; `top`, how many a place is given to; `hidden`, units of each (4 * dim where not said);
    `act`; `capacity`, room for that many times its even share; `noise`, its standard deviation; `balance`, the weight
    of the penalty."""

    widths = {"experts": ("router:out", "up:out", "down:in"), "hidden": ("up:out", "down:in")}
    inlets, outlets = ("router", "up"), ("down",)
    sizes = {"hidden": lambda dim, _: 4 * dim}
    tiny = {"experts": 3, "hidden": 4}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        out: int,
        *,
        experts: int = 4,
        top: int = 2,
        hidden: int | None = None,
        act: str = "gelu",
        capacity: float = 1.2,
        noise: float = 0.25,
        balance: float = 0.01,
    ) -> None:
        super().__init__()
        if not 1 <= top <= experts:
            raise BadSetting(f"block moe: top={top} of {experts} experts; give a top of 1 to as many as there are")
        if not (capacity > 0 and noise >= 0 and balance >= 0):
            raise BadSetting(
                f"block moe: capacity={capacity}, noise={noise}, balance={balance}; "
                "give a capacity above 0, the others 0 or above"
            )
        hidden = self.size("hidden", hidden, out)
        self.router = linear(dim, experts, bias=False)
        self.up, self.down = linear(dim, experts * hidden), linear(experts * hidden, out)
        self.act = activation(act)
        self.top, self.capacity, self.noise, self.balance = top, capacity, noise, balance
        self.penalty: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        if self.training:
            logits = logits + self.noise * torch.randn_like(logits)
        share = logits.softmax(dim=-1)
        chosen = share.topk(self.top, dim=-1).indices
        if self.training:
            taken = self._seated(chosen.flatten(0, -2), share.shape[-1]).to(share).view_as(share)
            self.penalty = self._unevenness(chosen, share)
        else:
            taken = torch.zeros_like(share).scatter(-1, chosen, 1.0)
        return self.down(gated(self.act(self.up(x)), share * taken))

    def auxiliary_loss(self) -> Tensor | None:  # of a layer that is visited several times in a pass, the last visit's
        return self.penalty

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "penalty": None}  # it hangs on a graph, which can be neither copied nor saved

    def _seated(self, chosen: Tensor, experts: int) -> Tensor:
        """Who gets a place with whom: (rows, experts), given the choices (rows, top) in the order of their gates."""
        wants = F.one_hot(chosen, experts).transpose(0, 1)  # first choices of all rows, then their second ones
        room = math.ceil(self.capacity * self.top * len(chosen) / experts)
        numbers = wants.flatten(0, 1).cumsum(dim=0).view_as(wants)
        return (wants * (numbers <= room)).sum(dim=0)

    def _unevenness(self, chosen: Tensor, share: Tensor) -> Tensor:
        experts = share.shape[-1]
        used = F.one_hot(chosen, experts).to(share).flatten(0, -2).mean(dim=0)
        return self.balance * experts * (used * share.flatten(0, -2).mean(dim=0)).sum()
