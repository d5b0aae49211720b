"""Gated MLP: one half of the hidden units opens and shuts the other half.

    y = down( act(gate x) * (up x) )        act=identity: the bilinear layer

Shapes   x, y: (batch, *places, dim);  within: (batch, *places, hidden)
Cost     3 * dim * hidden multiply-adds a place, 3 * dim * hidden weights (dense linears)
Papers   activator-glu-activations-as-the-core, a-technical-note-on-bilinear-layers
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear


class GatedMLP(Block):
    """Settings: `hidden`, how many units (8/3 * dim where not said, an MLP's weights); `act`, the activation's name."""

    widths = {"hidden": ("gate:out", "up:out", "down:in")}
    inlets, outlets = ("gate", "up"), ("down",)
    sizes = {"hidden": lambda dim, _: (8 * dim + 2) // 3}
    tiny = {"hidden": 12}

    def __init__(self, dim: int, linear: MakeLinear, out: int, *, hidden: int | None = None, act: str = "silu") -> None:
        super().__init__()
        hidden = self.size("hidden", hidden, out)
        self.gate, self.up, self.down = linear(dim, hidden), linear(dim, hidden), linear(hidden, out)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.gate(x)) * self.up(x))
