"""Every: a norm and a linear map to the outputs at each place alone.

    y = map( norm x )

Shapes   x: (batch, *places, dim);  y: (batch, *places, outputs)
Cost     dim * outputs multiply-adds a place, as many weights
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.base import Head, MakeLinear
from shoal.core.part import Part
from shoal.kinds import NORMS


class Every(Head):
    """Settings: `outputs`, numbers given at a place; `norm`, the norm's kind, its settings in brackets; `bias`, whether
    the map has one."""

    tiny = {"outputs": 3}

    def __init__(self, dim: int, linear: MakeLinear, *, outputs: int, norm: str = "layer", bias: bool = True) -> None:
        super().__init__()
        self.norm = NORMS.make(Part.parse(norm), dim, dim=dim)
        self.map = linear(dim, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(self.norm(x))
