"""Dense: every weight of the matrix for itself.

    y = W x + b        as a convolution: W laid channels last in memory, the form that CPU kernels take without a copy

Shapes   x: (..., inputs);  y: (..., outputs);  W: (outputs, inputs / groups, *kernel)
Cost     inputs * outputs / groups * kernel multiply-adds a place, as many weights
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Linear


class Dense(Linear):
    """No settings."""

    def __init__(self, inputs: int, outputs: int, bias: bool, kernel: tuple[int, ...], groups: int) -> None:
        super().__init__(inputs, outputs, bias, kernel, groups)
        weight = torch.empty(outputs, inputs // groups, *kernel)
        if len(kernel) == 2:
            weight = weight.to(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight)
        bound = 1 / math.sqrt(max(self.columns, 1))
        nn.init.uniform_(self.weight, -bound, bound)
        self._convolve = (None, F.conv1d, F.conv2d, F.conv3d)[len(kernel)]
        self._padding = [size // 2 for size in kernel]

    def matrix(self) -> Tensor:
        return self.weight.flatten(1)

    def fit(self, matrix: Tensor) -> None:
        with torch.no_grad():
            self.weight.copy_(matrix.view_as(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def convolve(self, x: Tensor, stride: int = 1) -> Tensor:
        assert self._convolve is not None, "a plain matrix has no kernel to convolve with"
        return self._convolve(x, self.weight, self.bias, stride, self._padding, 1, self.groups)
