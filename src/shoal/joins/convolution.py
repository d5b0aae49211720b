"""Convolution: one strided convolution to the next width, with a norm and an activation behind it where asked for.

    y = act( norm( kernel * x ) ), every `stride`-th place kept

Shapes   x: (batch, *places, inputs);  y: (batch, *ceil(places / stride), outputs);  places: as many as kernel has sizes
Cost     inputs * outputs * kernel multiply-adds a place of y, as many weights
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Join, MakeLinear
from shoal.core.part import Part
from shoal.joins._stride import require_stride
from shoal.kinds import NORMS


class ConvolutionJoin(Join):
    """Settings: `kernel`, its size along each place, odd; `stride`, places a step; `norm`, the norm's kind; `act`, the
    activation's name; `bias`, whether the convolution has one."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        linear: MakeLinear,
        *,
        kernel: tuple[int, ...] = (3, 3),
        stride: int = 2,
        norm: str = "none",
        act: str = "identity",
        bias: bool = True,
    ) -> None:
        super().__init__()
        require_stride("convolution", stride)
        self.map, self.stride = linear(inputs, outputs, bias=bias, kernel=kernel), stride
        self.norm = NORMS.make(Part.parse(norm), outputs, dim=outputs)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.map.convolve(x.movedim(-1, 1), self.stride)
        return self.act(self.norm.planes(y)).movedim(1, -1)
