"""MLP: two matrices with an activation between them, at every place alone.

    y = down( act(up x) )

Shapes   x, y: (batch, *places, dim);  within: (batch, *places, hidden)
Cost     2 * dim * hidden multiply-adds a place, as many weights (dense linears)
Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear


class MLP(Block):
    """Settings: `hidden`, how many units (4 * dim where not said); `act`, the activation's name."""

    widths = {"hidden": ("up:out", "down:in")}
    inlets, outlets = ("up",), ("down",)
    sizes = {"hidden": lambda dim, _: 4 * dim}
    tiny = {"hidden": 12}

    def __init__(self, dim: int, linear: MakeLinear, out: int, *, hidden: int | None = None, act: str = "relu") -> None:
        super().__init__()
        hidden = self.size("hidden", hidden, out)
        self.up, self.down = linear(dim, hidden), linear(hidden, out)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))
