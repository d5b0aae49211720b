"""Plain: one layer after another, nothing else.

    x <- f_i(x)

Shapes   x: (batch, *places, dim) throughout
Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from shoal.core.base import Branch, Wiring
from shoal.core.part import Value


class Plain(Wiring):
    """No settings."""

    known = {"trains_at_32": "thirty-two layers without a stream past them do not learn in 60 steps; why residuals are"}

    def reads(self) -> list[set[int]]:
        return [{i} for i in range(self.depth + 1)]

    def without(self, index: int) -> dict[str, Value]:
        return {}

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x
