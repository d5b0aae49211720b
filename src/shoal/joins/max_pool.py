"""Max pool: the largest of neighbouring places, then a linear map where the width changes.

    y = map( max over a square of `size` places along each axis ),  every `stride`-th square

Squares as large as their step begin at the first place, and what does not fill one at the far edge counts too; larger
ones have every `stride`-th place in their middle. Where there are no places it is the linear map alone.

Shapes   x: (batch, *places, inputs);  y: (batch, *ceil(places / stride), outputs)
Cost     nothing where the width stays; else inputs * outputs multiply-adds a place of y, as many weights
Papers   lets-keep-it-simple-using-simple, fractalnet-ultra-deep-neural-networks-without
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Join, MakeLinear
from shoal.core.errors import BadSetting

POOLS = (F.max_pool1d, F.max_pool2d, F.max_pool3d)  # by places


class MaxPoolJoin(Join):
    """Settings: `stride`, places a step; `size` of a square, the stride (where not said) or odd and larger."""

    def __init__(
        self, inputs: int, outputs: int, linear: MakeLinear, *, stride: int = 2, size: int | None = None
    ) -> None:
        super().__init__()
        size = stride if size is None else size
        if stride < 1 or (size != stride and (size < stride or size % 2 == 0)):
            raise BadSetting(
                f"join max_pool: stride={stride}, size={size}; give a size that is the stride, or odd above it"
            )
        self.map = None if inputs == outputs else linear(inputs, outputs)
        self.stride, self.side = stride, size
        self.padding = 0 if size == stride else size // 2

    def forward(self, x: Tensor) -> Tensor:
        places = x.dim() - 2
        if places:
            pool = POOLS[places - 1]
            edge = self.padding == 0  # with a middle, the last square needs no place beyond
            x = pool(x.movedim(-1, 1), self.side, self.stride, self.padding, ceil_mode=edge).movedim(1, -1)
        return x if self.map is None else self.map(x)
