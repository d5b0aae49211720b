"""Convolution: one strided convolution to the next width.

    y = kernel * x, every `stride`-th place kept

Shapes   x: (batch, *places, inputs);  y: (batch, *ceil(places / stride), outputs);  places: as many as kernel has sizes
Cost     inputs * outputs * kernel multiply-adds a place of y, as many weights
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.base import Join, MakeLinear


class ConvolutionJoin(Join):
    """Settings: `kernel`, its size along each place, odd; `stride`, places a step."""

    def __init__(
        self, inputs: int, outputs: int, linear: MakeLinear, *, kernel: tuple[int, ...] = (3, 3), stride: int = 2
    ) -> None:
        super().__init__()
        self.map, self.stride = linear(inputs, outputs, kernel=kernel), stride

    def forward(self, x: Tensor) -> Tensor:
        return self.map.convolve(x.movedim(-1, 1), self.stride).movedim(1, -1)
