"""None: no normalisation.

    y = x

Shapes   x, y: (batch, *places, dim)
Cost     nothing
"""

from __future__ import annotations

import torch
from torch import Tensor

from shoal.core.base import Norm


class Nothing(Norm):
    """No settings."""

    channelwise = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x

    def planes(self, x: Tensor) -> Tensor:
        return x

    def affine(self) -> tuple[Tensor, Tensor]:
        return torch.ones(self.dim), torch.zeros(self.dim)

    def neutral(self) -> None:
        """Nothing to set: it is the identity."""
