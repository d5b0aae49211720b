"""Batch norm: each channel brought to mean zero and variance one over the batch, then scaled and shifted.

    y = (x - mean) / sqrt(var + eps) * scale + shift        mean and var: of the batch in training, running ones in eval

Shapes   x, y: (batch, *places, dim)
Cost     2 * dim weights, 2 * dim buffers; nothing in eval once folded into the matrix before it
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Norm


class Batch(Norm):
    """Settings: `eps`, added to the variance; `momentum`, share of the new batch in the running statistics."""

    channelwise = True

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return self.planes(x)
        return self.planes(x.movedim(-1, 1)).movedim(1, -1)

    def planes(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )

    def affine(self) -> tuple[Tensor, Tensor]:
        scale = self.weight.detach() / (self.running_var + self.eps).sqrt()
        return scale, self.bias.detach() - self.running_mean * scale

    def neutral(self) -> None:
        with torch.no_grad():
            self.weight.copy_((self.running_var + self.eps).sqrt())
            self.bias.copy_(self.running_mean)
