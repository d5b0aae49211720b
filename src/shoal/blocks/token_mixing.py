"""Token mixing: an MLP along the places, the same for every channel.

    y = ( W2 act(W1 x^T + b1) + b2 )^T        a channel's row of places in, a row out

A row shorter than `places` is as one filled up with zeros.

Shapes   x, y: (batch, *places, dim), places taken as one row;  within: (batch, dim, hidden)
Cost     2 * places * hidden multiply-adds a channel, as many weights (dense linears)
Exact when the places are permuted, and the columns of W1 and the rows of W2 with them: so is the output
Papers   mlp-mixer-an-all-mlp-architecture
"""

from __future__ import annotations

from torch import Tensor

from shoal.blocks._tokens import back, checked, columns
from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear


class TokenMixing(Block):
    """Settings: `places`, how many the longest row has; `hidden`, how many units (half of dim where not said); `act`,
    the activation's name."""

    layouts = (1, 2)
    widths = {"hidden": ("up:out", "down:in")}
    sizes = {"hidden": lambda dim, _: max(dim // 2, 1)}
    tiny = {"places": 24, "hidden": 6}

    def __init__(
        self, dim: int, linear: MakeLinear, *, places: int = 64, hidden: int | None = None, act: str = "gelu"
    ) -> None:
        super().__init__()
        self.places = checked("token_mixing", places)
        hidden = self.size("hidden", hidden, dim)
        self.up, self.down = linear(places, hidden), linear(hidden, places)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        rows = columns("token_mixing", x, self.places)
        return back(self.down(self.act(self.up(rows))), x)
