"""Gumbel MoE: several small MLPs, all of them mixed by a gate that is drawn anew at every step of training.

    g = softmax((router x + noise) / temperature);    y = sum_e g_e W_e act(V_e x) + b        noise: standard Gumbel

In eval the gate is its mean over `samples` draws of the noise, which are made from `seed` once and for all: the output
is linear in the gate, so this is the mean of that many outputs at the price of one, and it repeats.

Shapes   x, y: (batch, *places, dim);  within: (batch, *places, experts * hidden)
Cost     experts * (2 * hidden + 1) * dim multiply-adds a place, as many weights (dense linears)
Exact when experts = 1: an MLP
Papers   gg-moe-vs-mlp-on-tabular
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.blocks._experts import gated
from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear
from shoal.core.errors import BadSetting
from shoal.core.part import Value


def _share_of_an_mlp(dim: int, before: Mapping[str, Value]) -> int:
    experts = before["experts"]
    return max(4 * dim // experts, 1) if isinstance(experts, int) and experts > 0 else 4 * dim


class GumbelMoE(Block):
    """Settings: `experts`; `hidden`, units of each (4 * dim in all where not said, an MLP's); `act`; `temperature`: low
    picks one expert, high takes all alike; `samples` of the gate in eval; `seed` of their noise."""

    widths = {"experts": ("router:out", "up:out", "down:in"), "hidden": ("up:out", "down:in")}
    inlets, outlets = ("router", "up"), ("down",)
    sizes = {"hidden": _share_of_an_mlp}
    tiny = {"experts": 3, "hidden": 4}
    noise: Tensor

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        out: int,
        *,
        experts: int = 4,
        hidden: int | None = None,
        act: str = "relu",
        temperature: float = 1.0,
        samples: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(experts, samples) < 1 or not temperature > 0:
            raise BadSetting(
                f"block gumbel_moe: experts={experts}, samples={samples}, temperature={temperature}; give all above 0"
            )
        if not 0 <= seed < 2**63:
            raise BadSetting(f"block gumbel_moe: seed={seed} is no seed; give 0 or above")
        hidden = self.size("hidden", hidden, out, experts=experts)
        self.router = linear(dim, experts)
        self.up, self.down = linear(dim, experts * hidden), linear(experts * hidden, out)
        self.act, self.temperature = activation(act), temperature
        draws = torch.empty(samples, experts, device="cpu")  # the same on every device
        draws.exponential_(generator=torch.Generator().manual_seed(seed))
        self.register_buffer("noise", -draws.log().to(torch.get_default_device()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(gated(self.act(self.up(x)), self.gates(self.router(x))))

    def gates(self, logits: Tensor) -> Tensor:
        """(..., experts) -> the same: one draw in training, the mean over the fixed draws in eval."""
        if self.training:
            return F.gumbel_softmax(logits, self.temperature)
        return ((logits.unsqueeze(-2) + self.noise) / self.temperature).softmax(dim=-1).mean(dim=-2)
