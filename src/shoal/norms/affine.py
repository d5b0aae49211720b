"""Affine: each channel scaled and shifted; nothing is measured of what comes in.

    y = scale * x + shift

Shapes   x, y: (batch, *places, dim)
Cost     2 * dim weights; nothing once merged into the matrix that reads it
Exact when a matrix reads it: W (scale x + shift) + b = (W scale) x + (W shift + b)
Papers   resmlp-feedforward-networks-for-image-classification
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shoal.core.base import Norm


class Affine(Norm):
    """No settings."""

    channelwise = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias

    def planes(self, x: Tensor) -> Tensor:
        return self.forward(x.movedim(1, -1)).movedim(-1, 1)

    def affine(self) -> tuple[Tensor, Tensor]:
        return self.weight.detach(), self.bias.detach()

    def neutral(self) -> None:
        with torch.no_grad():
            self.weight.fill_(1)
            self.bias.zero_()
