"""Token linear: one matrix along the places, the same for every channel and for whatever data.

    y = ( A x^T + b )^T        a channel's row of places in, a row out

A row shorter than `places` is as one filled up with zeros.

Shapes   x, y: (batch, *places, dim), places taken as one row
Cost     places^2 multiply-adds a channel, as many weights (dense linears)
Exact when two stand one behind the other with nothing between: one token linear of the product of their matrices
Papers   resmlp-feedforward-networks-for-image-classification
"""

from __future__ import annotations

from torch import Tensor

from shoal.blocks._tokens import back, checked, columns
from shoal.core.base import Block, MakeLinear


class TokenLinear(Block):
    """Settings: `places`, how many the longest row has."""

    layouts = (1, 2)
    tiny = {"places": 24}

    def __init__(self, dim: int, linear: MakeLinear, *, places: int = 64) -> None:
        super().__init__()
        self.places = checked("token_linear", places)
        self.map = linear(places, places)

    def forward(self, x: Tensor) -> Tensor:
        return back(self.map(columns("token_linear", x, self.places)), x)
