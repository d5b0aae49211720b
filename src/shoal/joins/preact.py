"""Preact: the block `preact` with a stride, and beside it a projection of what its first norm and activation gave.

    u = act( norm x );    y = shortcut u + second( act( norm( first u ) ) )      shortcut: 1 x 1;  others: kernel

`first` and the shortcut keep every `stride`-th place. The sum is left as it is: the next block begins with a norm.

Shapes   x: (batch, *places, inputs);  y: (batch, *ceil(places / stride), outputs);  places: as many as kernel has sizes
Cost     (inputs * (kernel + 1) + outputs * kernel) * outputs multiply-adds a place of y, as many weights
Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Join, MakeLinear
from shoal.core.part import Part
from shoal.joins._stride import require_stride
from shoal.kinds import NORMS


class PreactJoin(Join):
    """Settings: `stride`, places a step; `kernel`, its size along each place, odd; `norm`, the norms' kind; `act`, the
    activation's name."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        linear: MakeLinear,
        *,
        stride: int = 2,
        kernel: tuple[int, ...] = (3, 3),
        norm: str = "batch",
        act: str = "relu",
    ) -> None:
        super().__init__()
        require_stride("preact", stride)
        self.before = NORMS.make(Part.parse(norm), inputs, dim=inputs)
        self.first = linear(inputs, outputs, bias=False, kernel=kernel)
        self.inner = NORMS.make(Part.parse(norm), outputs, dim=outputs)
        self.second = linear(outputs, outputs, bias=False, kernel=kernel)
        self.shortcut = linear(inputs, outputs, bias=False, kernel=tuple(1 for _ in kernel))
        self.act, self.stride = activation(act), stride

    def forward(self, x: Tensor) -> Tensor:
        u = self.act(self.before.planes(x.movedim(-1, 1)))
        y = self.second.convolve(self.act(self.inner.planes(self.first.convolve(u, self.stride))))
        return (self.shortcut.convolve(u, self.stride) + y).movedim(1, -1)
