"""What matrices share that keep one number for each weight and look at it in another way when they run."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLVE = (F.conv1d, F.conv2d, F.conv3d)


def dense_weight(outputs: int, columns: int, kernel: tuple[int, ...]) -> nn.Parameter:
    """Weights as a dense matrix draws them; a kernel of two sizes is laid channels last, as CPU kernels take it."""
    weight = torch.empty(outputs, columns, *kernel)
    if len(kernel) == 2:
        weight = weight.to(memory_format=torch.channels_last)
    bound = 1 / math.sqrt(max(columns * math.prod(kernel), 1))
    nn.init.uniform_(weight, -bound, bound)
    return nn.Parameter(weight)


def convolve_with(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int) -> Tensor:
    """The convolution that keeps the places, with a kernel of any number of sizes."""
    sizes = weight.shape[2:]
    assert sizes, "a plain matrix has no kernel to convolve with"
    return CONVOLVE[len(sizes) - 1](x, weight, bias, stride, [size // 2 for size in sizes], 1, groups)
