"""Pool: the mean over all places, a norm, and a linear map to the outputs.

    y = map( norm( mean over places of x ) )

Shapes   x: (batch, *places, dim);  y: (batch, outputs)
Cost     dim * outputs multiply-adds, as many weights
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.base import Head, MakeLinear
from shoal.core.part import Part
from shoal.kinds import NORMS


class Pool(Head):
    """Settings: `outputs`, numbers given; `norm`, the norm's kind."""

    tiny = {"outputs": 3}

    def __init__(self, dim: int, linear: MakeLinear, *, outputs: int, norm: str = "layer") -> None:
        super().__init__()
        self.norm = NORMS.make(Part(norm), dim, dim=dim)
        self.map = linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() > 2:
            x = x.mean(dim=tuple(range(1, x.dim() - 1)))
        return self.map(self.norm(x))
