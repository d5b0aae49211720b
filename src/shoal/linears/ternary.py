"""Ternary: every weight is -1, 0 or 1 times one size, which is the mean of all.

    y = s T x + b,   T = clip(round(W / s), -1, 1),   s = mean |W|  (or median)

W itself is kept and learns: the gradient of T s is given to it straight. With `tokens` each token of the input is moved
to integers of 8 bits first, by its own largest number, as in the paper.

Shapes   x: (..., inputs);  y: (..., outputs);  W: (outputs, inputs / groups, *kernel)
Cost     as dense while it learns; log2(3) = 1.58 bits a weight where integers are stored
Exact when W is ternary
Papers   when-are-1-58-bits-enough
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Linear
from shoal.core.grids import before_ternary, by_token, ternary
from shoal.linears._dense import convolve_with, dense_weight


class Ternary(Linear):
    """Settings: `measure` of the size, mean or median; `tokens`, whether those of the input are moved to 8 bits."""

    tiny = {"measure": "median"}

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool,
        kernel: tuple[int, ...],
        groups: int,
        *,
        measure: str = "mean",
        tokens: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, bias, kernel, groups)
        self.weight = dense_weight(outputs, inputs // groups, kernel)
        self.measure, self.tokens = measure, tokens
        ternary(self.weight, measure)  # an unknown measure is told now

    def matrix(self) -> Tensor:
        return ternary(self.weight, self.measure).flatten(1)

    def fit(self, matrix: Tensor) -> None:
        self.weight.data.copy_(before_ternary(matrix, self.measure).view_as(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        x = by_token(x, -1) if self.tokens else x
        return F.linear(x, ternary(self.weight, self.measure), self.bias)

    def convolve(self, x: Tensor, stride: int = 1) -> Tensor:
        x = by_token(x, 1) if self.tokens else x
        return convolve_with(x, ternary(self.weight, self.measure), self.bias, stride, self.groups)
