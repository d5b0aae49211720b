"""Shift: the channels are the outputs, each moved by a number that is learned.

    y = x + b

For stages that are as wide as there are outputs, such as those that propagate in the space of the classes.

Shapes   x: (batch, *places, dim);  y: (batch, *places, outputs), outputs = dim
Cost     outputs weights
Papers   towards-deeper-graph-neural-networks
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shoal.core.base import Head, MakeLinear
from shoal.core.errors import BadSetting


class Shift(Head):
    """Settings: `outputs`, numbers given at a place, as many as the last stage is wide; `bias`, whether they move."""

    tiny = {"outputs": 8}

    def __init__(self, dim: int, linear: MakeLinear, *, outputs: int, bias: bool = True) -> None:
        super().__init__()
        if outputs != dim:
            raise BadSetting(f"head shift: outputs={outputs} behind a stage of width {dim}; make the two equal")
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return x if self.bias is None else x + self.bias
