"""SELU: an MLP that keeps the mean 0 and the variance 1 of what goes through it, at any depth and without norms.

    y = down( dropout( selu(up x) ) )        entries of up and down: normal, of variance 1 / inputs, at the start

selu maps a standard normal to mean 0 and variance 1, and pulls what is near that towards it. Alpha dropout sets units
to the value selu has far below 0, then scales and shifts all, so that mean and variance stay. The self-normalizing net
is `plain(selu norm=none)`, on standardised inputs; a wiring that adds branches up grows the variance and wants a norm.

Shapes   x, y: (batch, *places, dim);  within: (batch, *places, hidden)
Cost     2 * dim * hidden multiply-adds a place, as many weights (dense linears)
Papers   self-normalizing-neural-networks
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Block, MakeLinear
from shoal.core.errors import BadSetting


class SELU(Block):
    """Settings: `hidden`, how many units (4 * dim where not said); `dropout`, the share of units dropped in training
    (0.05 to 0.1 are usual)."""

    widths = {"hidden": ("up:out", "down:in")}
    inlets, outlets = ("up",), ("down",)
    sizes = {"hidden": lambda dim, _: 4 * dim}
    tiny = {"hidden": 12}

    def __init__(
        self, dim: int, linear: MakeLinear, out: int, *, hidden: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise BadSetting(f"block selu: dropout={dropout} is no share of the units; give 0 or above and below 1")
        hidden = self.size("hidden", hidden, out)
        self.up, self.down, self.dropout = linear(dim, hidden), linear(hidden, out), dropout
        for each in (self.up, self.down):
            each.fit(torch.randn(each.outputs, each.inputs) / each.inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.alpha_dropout(F.selu(self.up(x)), self.dropout, self.training))
