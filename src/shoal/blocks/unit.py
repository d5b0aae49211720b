"""Unit: one convolution, a norm and an activation; what plain and fractal nets are made of.

    y = act( norm( map x ) )

Shapes   x, y: (batch, *places, dim);  places: as many as ``kernel`` has sizes
Cost     dim * dim * kernel multiply-adds a place, as many weights (dense linears)
Papers   lets-keep-it-simple-using-simple, fractalnet-ultra-deep-neural-networks-without
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear, MakeNorm


class Unit(Block):
    """Settings: `kernel`, its size along each place, odd; `act`, the activation's name; `bias`, whether the convolution
    has one (the norm behind it takes any bias out again)."""

    layouts = (2,)
    norm = "batch"
    inlets = ("map",)
    folds = {"behind": ("map:out",)}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        norm: MakeNorm,
        out: int,
        *,
        kernel: tuple[int, ...] = (3, 3),
        act: str = "relu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.map, self.behind = linear(dim, out, bias=bias, kernel=kernel), norm(out)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.behind.planes(self.map.convolve(x.movedim(-1, 1)))).movedim(1, -1)
