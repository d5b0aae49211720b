"""BiLSTM: a row of places read by two LSTMs, one from each end; a place gets what both remember there.

    y_t = [ forward_t(x_1 .. x_t), backward_t(x_n .. x_t) ]        each of half the width

Shapes   x, y: (batch, places, dim), dim even
Cost     6 * dim^2 + 4 * dim weights; 6 * dim^2 multiply-adds a place, one place after another
Papers   distilling-task-specific-knowledge-from-bert
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shoal.core.base import Block, MakeLinear
from shoal.core.errors import BadSetting

GATES = 4  # in, forget, new, out: their rows one behind the other, as torch has them


class BiLSTM(Block):
    """No settings."""

    layouts = (1,)

    def __init__(self, dim: int, linear: MakeLinear) -> None:
        super().__init__()
        if dim % 2:
            raise BadSetting(f"block bilstm: a width of {dim} has no halves; make it even")
        self.units = units = dim // 2
        self.taken = nn.Parameter(torch.empty(2, GATES * units, dim))  # what a place gives to the gates, each direction
        self.kept = nn.Parameter(torch.empty(2, GATES * units, units))  # and what is remembered
        self.shift = nn.Parameter(torch.empty(2, GATES * units))
        for weight in (self.taken, self.kept, self.shift):
            nn.init.uniform_(weight, -(units**-0.5), units**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        first = x.new_zeros(2, x.shape[0], self.units)
        none = torch.zeros_like(self.shift[0])  # torch has two shifts, of which one would do
        weights = [each for i in (0, 1) for each in (self.taken[i], self.kept[i], self.shift[i], none)]
        out: Tensor = torch.lstm(x, (first, first), weights, True, 1, 0.0, self.training, True, True)[0]
        return out
