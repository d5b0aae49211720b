"""Widen: a linear map to the next width; the places stay.

    y = map x

Shapes   x: (batch, *places, inputs);  y: (batch, *places, outputs)
Cost     inputs * outputs multiply-adds a place, as many weights
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.base import Join, MakeLinear


class Widen(Join):
    """No settings."""

    def __init__(self, inputs: int, outputs: int, linear: MakeLinear) -> None:
        super().__init__()
        self.map = linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)
