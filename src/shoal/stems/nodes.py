"""Nodes: a row of features, some left out in training, into a row of channels.

    y = map( dropout x )

Shapes   x: (nodes, features);  y: (nodes, dim)
Cost     features * dim multiply-adds, as many weights
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import MakeLinear, Stem
from shoal.core.errors import BadSetting
from shoal.core.part import Value


class Nodes(Stem):
    """Settings: `features`, numbers in a row; `dropout`, the share of them left out in training; `bias`, of the map."""

    tiny = {"features": 5}

    def __init__(self, dim: int, linear: MakeLinear, *, features: int, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise BadSetting(f"stem nodes: dropout={dropout} must be a share, from 0 to below 1")
        self.dropout = dropout
        self.map = linear(features, dim, bias=bias)

    @classmethod
    def reads(cls, places: tuple[int, ...], channels: int, vocabulary: int | None) -> dict[str, Value] | None:
        return {"features": channels} if not places and vocabulary is None else None

    def forward(self, x: Tensor) -> Tensor:
        return self.map(F.dropout(x, self.dropout, self.training))
