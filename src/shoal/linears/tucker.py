"""Tucker: few inputs and few outputs within, and the kernel between those alone.

    y = U ( C (D x) ) + b        as a convolution: D and U are 1 x 1, C has the kernel

Shapes   x: (..., inputs);  y: (..., outputs);  D: (b, inputs);  C: (a, b, *kernel);  U: (outputs, a)
Cost     b * inputs + a * b * kernel + a * outputs multiply-adds a place, as many weights
Exact when the ranks reach those of the kernel it is fitted to, along its outputs and along its inputs
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Linear
from shoal.core.errors import BadSetting
from shoal.linears._cuts import tucker, tucker_ranks


class Tucker(Linear):
    """Settings: `ranks`, of the outputs and of the inputs; where there can be fewer, as many as there can be."""

    tiny = {"ranks": (4, 3)}

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool,
        kernel: tuple[int, ...],
        groups: int,
        *,
        ranks: tuple[int, ...] = (8, 8),
    ) -> None:
        super().__init__(inputs, outputs, bias, kernel, groups)
        if len(ranks) != 2 or min(ranks) < 1:
            raise BadSetting(f"linear tucker: ranks={list(ranks)}; give two of at least 1, of outputs and of inputs")
        if groups > 1:
            raise BadSetting(f"linear tucker: a matrix of {groups} groups has no two ranks; use dense for it")
        places = int(torch.Size(kernel).numel())
        self.ranks = tucker_ranks(outputs, inputs, places, ranks)
        self.down = nn.Parameter(torch.empty(self.ranks[1], inputs))
        self.core = nn.Parameter(torch.empty(*self.ranks, *kernel))
        self.up = nn.Parameter(torch.empty(outputs, self.ranks[0]))
        self._convolve = (None, F.conv1d, F.conv2d, F.conv3d)[len(kernel)]
        self._padding = [size // 2 for size in kernel]
        # each keeps the variance of what comes in, and the last leaves as much of it as a dense matrix does, a third
        nn.init.normal_(self.down, std=inputs**-0.5)
        nn.init.normal_(self.core, std=(self.ranks[1] * places) ** -0.5)
        nn.init.normal_(self.up, std=(3 * self.ranks[0]) ** -0.5)

    def matrix(self) -> Tensor:
        core = self.core.flatten(2) if self.kernel else self.core.unsqueeze(2)
        return torch.einsum("oa,abp,bi->oip", self.up, core, self.down).flatten(1)

    def fit(self, matrix: Tensor) -> None:
        parts = tucker(matrix.reshape(self.outputs, self.inputs, *self.kernel), self.ranks)
        with torch.no_grad():
            for own, found in zip((self.up, self.core, self.down), parts, strict=True):
                own.copy_(found)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(F.linear(x, self.down), self.core), self.up, self.bias)

    def convolve(self, x: Tensor, stride: int = 1) -> Tensor:
        assert self._convolve is not None, "a plain matrix has no kernel to convolve with"
        ones = tuple(1 for _ in self.kernel)
        inner = self._convolve(x, self.down.view(*self.down.shape, *ones))
        inner = self._convolve(inner, self.core, None, stride, self._padding)
        return self._convolve(inner, self.up.view(*self.up.shape, *ones), self.bias)
