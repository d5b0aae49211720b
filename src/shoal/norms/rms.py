"""RMS norm: each place brought to a mean square of one over its channels, then scaled.

    y = x / sqrt(mean x^2 + eps) * scale

Shapes   x, y: (batch, *places, dim)
Cost     dim weights
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Norm


class RMS(Norm):
    """Settings: `eps`, added to the mean square."""

    def __init__(self, dim: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)

    def planes(self, x: Tensor) -> Tensor:
        return self.forward(x.movedim(1, -1)).movedim(-1, 1)

    def affine(self) -> tuple[Tensor, Tensor]:
        return self.weight.detach(), torch.zeros_like(self.weight)

    def neutral(self) -> None:
        with torch.no_grad():
            self.weight.fill_(1)
