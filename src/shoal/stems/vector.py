"""Vector: a row of features into a row of channels.

    y = map x

Shapes   x: (batch, features);  y: (batch, dim)
Cost     features * dim multiply-adds, as many weights
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.base import MakeLinear, Stem
from shoal.core.part import Value


class Vector(Stem):
    """Settings: `features`, numbers in a row."""

    tiny = {"features": 5}

    def __init__(self, dim: int, linear: MakeLinear, *, features: int) -> None:
        super().__init__()
        self.map = linear(features, dim)

    @classmethod
    def reads(cls, places: tuple[int, ...], channels: int, vocabulary: int | None) -> dict[str, Value] | None:
        return {"features": channels} if not places and vocabulary is None else None

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)
