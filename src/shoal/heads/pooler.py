"""Pooler: the first place through a matrix and a tanh, then a linear map to the outputs.

    y = map( tanh(pool x_0) )

Shapes   x: (batch, *places, dim), places taken as one row;  y: (batch, outputs)
Cost     dim * (dim + outputs) multiply-adds, as many weights
Papers   an-introduction-to-transformers
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.base import Head, MakeLinear


class Pooler(Head):
    """Settings: `outputs`, numbers given."""

    tiny = {"outputs": 3}

    def __init__(self, dim: int, linear: MakeLinear, *, outputs: int) -> None:
        super().__init__()
        self.pool, self.map = linear(dim, dim), linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        first = x if x.dim() == 2 else x.flatten(1, -2)[:, 0]
        return self.map(self.pool(first).tanh())
