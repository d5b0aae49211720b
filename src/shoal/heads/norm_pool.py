"""Norm pool: a norm and an activation at each place, the mean over all places, and a linear map to the outputs.

    y = map( mean over places of act( norm x ) )

For nets whose blocks begin with their norms: the last sum is still to be normed.

Shapes   x: (batch, *places, dim);  y: (batch, outputs)
Cost     dim * outputs multiply-adds, as many weights
Papers   densely-connected-convolutional-networks
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Head, MakeLinear
from shoal.core.part import Part
from shoal.kinds import NORMS


class NormPool(Head):
    """Settings: `outputs`, numbers given; `norm`, the norm's kind; `act`, the activation's name."""

    tiny = {"outputs": 3}

    def __init__(self, dim: int, linear: MakeLinear, *, outputs: int, norm: str = "batch", act: str = "relu") -> None:
        super().__init__()
        self.norm = NORMS.make(Part.parse(norm), dim, dim=dim)
        self.map = linear(dim, outputs)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(x))
        if x.dim() > 2:
            x = x.mean(dim=tuple(range(1, x.dim() - 1)))
        return self.map(x)
