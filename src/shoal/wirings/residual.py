"""Residual: every layer adds to a stream that all later ones read.

    x <- x + f_i(x)

Shapes   x: (batch, *places, dim) throughout
Exact when a layer gives zero: dropping it changes nothing
Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from shoal.core.base import Branch, Wiring
from shoal.core.part import Value


class Residual(Wiring):
    """No settings."""

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def groups(self) -> list[int]:
        return [1] * self.depth

    def without(self, index: int) -> dict[str, Value]:
        return {}

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        for layer in layers:
            x = x + layer(x)
        return x
