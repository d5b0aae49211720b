"""Class MLP: two matrices with an activation between them, at the first place alone; the others get nothing.

    y_0 = down( act(up x_0) );    y_i = 0

Shapes   x, y: (batch, *places, dim), places taken as one row;  the first of them is the class token
Cost     2 * dim * hidden multiply-adds an example, as many weights (dense linears)
Exact when it is added to a stream: all places but the first stay as they are
Papers   going-deeper-with-image-transformers
"""

from __future__ import annotations

from torch import Tensor

from shoal.blocks._tokens import at_first
from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear


class ClassMLP(Block):
    """Settings: `hidden`, how many units (4 * dim where not said); `act`, the activation's name."""

    layouts = (1, 2)
    widths = {"hidden": ("up:out", "down:in")}
    inlets, outlets = ("up",), ("down",)
    sizes = {"hidden": lambda dim, _: 4 * dim}
    tiny = {"hidden": 12}

    def __init__(self, dim: int, linear: MakeLinear, out: int, *, hidden: int | None = None, act: str = "gelu") -> None:
        super().__init__()
        hidden = self.size("hidden", hidden, out)
        self.up, self.down = linear(dim, hidden), linear(hidden, out)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        first = x.flatten(1, -2)[:, :1]
        return at_first(self.down(self.act(self.up(first))), x)
