"""Masked: a dense matrix of which only some weights may be other than zero.

    y = (M * W) x + b        M is 0 or 1: of all weights, or of every `of` neighbouring inputs of a row, a share is 1

`masked[density=0.5,of=4]` is the pattern 2:4. The mask is a buffer: it is saved with the weights, and training keeps
to it. It is no faster: the kernels multiply by the zeros.

Shapes   x: (..., inputs);  y: (..., outputs);  W, M: (outputs, inputs / groups, *kernel)
Cost     that of a dense matrix, and a multiply a weight
Exact when the matrix it is fitted to has no more weights than that, in each run
Papers   the-unreasonable-effectiveness-of-random-pruning
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Linear
from shoal.linears._masks import checked, mask_of


class Masked(Linear):
    """Settings: `density`, the share of weights that are kept; `of`, how many neighbouring inputs of a row it is a
    share of, 0 for the whole matrix."""

    mask: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool,
        kernel: tuple[int, ...],
        groups: int,
        *,
        density: float = 0.5,
        of: int = 0,
    ) -> None:
        super().__init__(inputs, outputs, bias, kernel, groups)
        checked("linear masked", density, of)
        self.density, self.of = density, of
        weight = torch.empty(outputs, inputs // groups, *kernel)
        if len(kernel) == 2:
            weight = weight.to(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight)
        bound = 1 / math.sqrt(self.columns)
        nn.init.uniform_(self.weight, -bound, bound)
        self.register_buffer("mask", mask_of(weight.detach().abs(), density, of))
        self._convolve = (None, F.conv1d, F.conv2d, F.conv3d)[len(kernel)]
        self._padding = [size // 2 for size in kernel]

    def matrix(self) -> Tensor:
        return (self.weight * self.mask).flatten(1)

    def fit(self, matrix: Tensor) -> None:
        wanted = matrix.reshape(self.weight.shape)
        mask = mask_of(wanted.abs(), self.density, self.of)
        with torch.no_grad():
            self.weight.copy_(wanted * mask)
            self.mask.copy_(mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)

    def convolve(self, x: Tensor, stride: int = 1) -> Tensor:
        assert self._convolve is not None, "a plain matrix has no kernel to convolve with"
        return self._convolve(x, self.weight * self.mask, self.bias, stride, self._padding, 1, self.groups)
