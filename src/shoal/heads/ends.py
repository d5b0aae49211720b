"""Ends: what was remembered where a reading ended, through a matrix, a ReLU and a map to the outputs.

    y = map( relu( inner [ x_n first half, x_1 second half ] ) )

Behind a `bilstm` the first half of the channels was read forwards and has seen all at the last place, the second half
was read backwards and has at the first.

Shapes   x: (batch, *places, dim), places taken as one row;  y: (batch, outputs)
Cost     hidden * (dim + outputs) multiply-adds, as many weights
Papers   distilling-task-specific-knowledge-from-bert
"""

from __future__ import annotations

import torch
from torch import Tensor

from shoal.core.base import Head, MakeLinear


class Ends(Head):
    """Settings: `outputs`, numbers given; `hidden`, units between (dim where not said)."""

    sizes = {"hidden": lambda dim, _: dim}
    tiny = {"outputs": 3, "hidden": 6}

    def __init__(self, dim: int, linear: MakeLinear, *, outputs: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = self.size("hidden", hidden, dim)
        self.forwards = dim // 2
        self.inner, self.map = linear(dim, hidden), linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        row = x[:, None] if x.dim() == 2 else x.flatten(1, -2)
        ends = torch.cat((row[:, -1, : self.forwards], row[:, 0, self.forwards :]), dim=-1)
        return self.map(self.inner(ends).relu())
