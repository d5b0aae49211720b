"""Class token: a learned place put in front of all others, which are laid in one row.

    y = [token, map x_1, ..., map x_n]        the map only where the width changes

Shapes   x: (batch, *places, inputs);  y: (batch, 1 + places, outputs)
Cost     outputs weights
Papers   going-deeper-with-image-transformers
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shoal.core.base import Join, MakeLinear


class ClassToken(Join):
    """No settings."""

    known = {"any_places": "it is there to put one more place in front of a row of all"}

    def __init__(self, inputs: int, outputs: int, linear: MakeLinear) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(outputs))
        nn.init.normal_(self.token, std=0.02)
        self.map = None if inputs == outputs else linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        row = x.unsqueeze(1) if x.dim() == 2 else x.flatten(1, -2)
        if self.map is not None:
            row = self.map(row)
        return torch.cat((self.token.expand(row.shape[0], 1, -1), row), dim=1)
