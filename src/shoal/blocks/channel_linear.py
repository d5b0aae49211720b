"""Channel linear: one matrix along the channels, at every place alone, and nothing else.

    y = W x + b

What stands where a layer was replaced by its best linear map: in a residual stage x + W x + b. No norm comes before
it, whatever kind the layer names: it asks for norms and places none.

Shapes   x, y: (batch, *places, dim)
Cost     dim^2 multiply-adds a place, as many weights (dense linears)
Exact when two stand one behind the other with nothing between: one channel linear of the product of their matrices
Papers   do-language-models-use-their-depth
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.base import Block, MakeLinear, MakeNorm


class ChannelLinear(Block):
    """No settings."""

    inlets, outlets = ("map",), ("map",)

    def __init__(self, dim: int, linear: MakeLinear, norm: MakeNorm, out: int) -> None:
        super().__init__()
        self.map = linear(dim, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)
