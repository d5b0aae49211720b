"""First: a norm and a linear map to the outputs at the first place, where a class token stands.

    y = map( norm x_0 )

Shapes   x: (batch, *places, dim), places taken as one row;  y: (batch, outputs)
Cost     dim * outputs multiply-adds, as many weights
Papers   going-deeper-with-image-transformers
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.base import Head, MakeLinear
from shoal.core.part import Part
from shoal.kinds import NORMS


class First(Head):
    """Settings: `outputs`, numbers given; `norm`, the norm's kind, its settings in brackets."""

    tiny = {"outputs": 3}

    def __init__(self, dim: int, linear: MakeLinear, *, outputs: int, norm: str = "layer") -> None:
        super().__init__()
        self.norm = NORMS.make(Part.parse(norm), dim, dim=dim)
        self.map = linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        first = x if x.dim() == 2 else x.flatten(1, -2)[:, 0]
        return self.map(self.norm(first))
