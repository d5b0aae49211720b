"""Low rank: the product of two thin matrices.

    y = U (V x) + b        as a convolution: V has the kernel, U is 1 x 1

Shapes   x: (..., inputs);  y: (..., outputs);  V: (rank, inputs, *kernel);  U: (outputs, rank)
Cost     rank * (inputs * kernel + outputs) multiply-adds a place, as many weights
Exact when the rank reaches that of the matrix it is fitted to
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Linear
from shoal.core.errors import BadSetting


class LowRank(Linear):
    """Settings: `rank`, the inner width; where a matrix has fewer rows or columns, as many as it has."""

    tiny = {"rank": 2}

    def __init__(
        self, inputs: int, outputs: int, bias: bool, kernel: tuple[int, ...], groups: int, *, rank: int = 8
    ) -> None:
        super().__init__(inputs, outputs, bias, kernel, groups)
        if rank < 1:
            raise BadSetting(f"linear low_rank: rank={rank} carries nothing; give at least 1")
        if groups > 1:
            raise BadSetting(f"linear low_rank: a matrix of {groups} groups has no one rank; use dense for it")
        self.rank = min(rank, outputs, self.columns)
        self.down = nn.Parameter(torch.empty(self.rank, inputs, *kernel))
        self.up = nn.Parameter(torch.empty(outputs, self.rank))
        self._convolve = (None, F.conv1d, F.conv2d, F.conv3d)[len(kernel)]
        self._padding = [size // 2 for size in kernel]
        # as much variance as a dense matrix of these columns: rank * var(up) * var(down) = 1 / (3 columns)
        nn.init.normal_(self.down, std=self.columns**-0.5)
        nn.init.normal_(self.up, std=(3 * self.rank) ** -0.5)

    def matrix(self) -> Tensor:
        return self.up @ self.down.flatten(1)

    def fit(self, matrix: Tensor) -> None:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        root = values[: self.rank].sqrt()
        with torch.no_grad():
            self.up.copy_(left[:, : self.rank] * root)
            self.down.copy_((root[:, None] * right[: self.rank]).view_as(self.down))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.down), self.up, self.bias)

    def convolve(self, x: Tensor, stride: int = 1) -> Tensor:
        assert self._convolve is not None, "a plain matrix has no kernel to convolve with"
        inner = self._convolve(x, self.down, None, stride, self._padding)
        up = self.up.view(*self.up.shape, *(1 for _ in self.kernel))
        return self._convolve(inner, up, self.bias)
