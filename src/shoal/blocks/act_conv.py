"""Act conv: an activation, then one convolution; the norm stands before it, as before any block.

    y = map( act x )

Shapes   x, y: (batch, *places, dim);  places: as many as ``kernel`` has sizes
Cost     dim * dim * kernel multiply-adds a place, as many weights (dense linears)
Papers   densely-connected-convolutional-networks
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear


class ActConv(Block):
    """Settings: `kernel`, its size along each place, odd; `act`, the activation's name; `bias`, whether it has one."""

    layouts = (2,)
    norm = "batch"
    outlets = ("map",)

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        out: int,
        *,
        kernel: tuple[int, ...] = (3, 3),
        act: str = "relu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.map = linear(dim, out, bias=bias, kernel=kernel)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.map.convolve(self.act(x).movedim(-1, 1)).movedim(1, -1)
