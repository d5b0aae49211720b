"""Max pool: the largest value of each channel over all places, and a linear map to the outputs.

    y = map( max over places of x )

Shapes   x: (batch, *places, dim);  y: (batch, outputs)
Cost     dim * outputs multiply-adds, as many weights
Papers   lets-keep-it-simple-using-simple
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.base import Head, MakeLinear


class MaxPool(Head):
    """Settings: `outputs`, numbers given."""

    tiny = {"outputs": 3}

    def __init__(self, dim: int, linear: MakeLinear, *, outputs: int) -> None:
        super().__init__()
        self.map = linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x.flatten(1, -2).amax(dim=1) if x.dim() > 2 else x)
