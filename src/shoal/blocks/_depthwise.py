"""Depthwise: a convolution of each channel alone; of no linear kind, as the kernel of a channel is no matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.errors import BadSetting

CONVOLVE = (F.conv1d, F.conv2d, F.conv3d)  # by places


class Depthwise(nn.Module):
    """(batch, dim, *places) -> same; zero padding of half a kernel. ``block``: who asks, for the error."""

    def __init__(self, dim: int, kernel: tuple[int, ...], block: str) -> None:
        super().__init__()
        if not 1 <= len(kernel) <= len(CONVOLVE) or any(size < 1 or size % 2 == 0 for size in kernel):
            raise BadSetting(f"block {block}: kernel {list(kernel)}; give one to three odd sizes, to keep the places")
        weight = torch.empty(dim, 1, *kernel)
        if len(kernel) == 2:
            weight = weight.to(memory_format=torch.channels_last)  # what CPU kernels take without a copy
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(dim))
        bound = 1 / math.sqrt(math.prod(kernel))
        nn.init.uniform_(self.weight, -bound, bound)
        self._convolve, self._padding = CONVOLVE[len(kernel) - 1], [size // 2 for size in kernel]

    def forward(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight, self.bias, 1, self._padding, 1, len(self.weight))
