"""Layer norm: each place brought to mean zero and variance one over its channels, then scaled and shifted.

    y = (x - mean x) / sqrt(var x + eps) * scale + shift

Shapes   x, y: (batch, *places, dim)
Cost     2 * dim weights
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Norm


class LayerNorm(Norm):
    """Settings: `eps`, added to the variance."""

    def __init__(self, dim: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)

    def planes(self, x: Tensor) -> Tensor:
        return self.forward(x.movedim(1, -1)).movedim(-1, 1)

    def affine(self) -> tuple[Tensor, Tensor]:
        return self.weight.detach(), self.bias.detach()

    def neutral(self) -> None:
        with torch.no_grad():
            self.weight.fill_(1)
            self.bias.zero_()
