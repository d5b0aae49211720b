"""Preact: two convolutions, a norm and an activation before each.

    y = second( act( norm( first( act( norm x ) ) ) ) )

With kernels of 3 x 3 it is the block of a wide residual net; with 1 x 1 and 3 x 3, and four times as many channels
within as it gives, the bottleneck layer of a dense net.

Shapes   x, y: (batch, *places, dim);  within: (batch, hidden, *places);  places: as many as a kernel has sizes
Cost     dim * hidden * kernel of each multiply-adds a place, as many weights (dense linears)
Papers   densely-connected-convolutional-networks, deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear, MakeNorm
from shoal.core.errors import BadSetting


class Preact(Block):
    """Settings: `hidden`, channels within (dim where not said); `kernels`, the sizes of the two along each place, odd;
    `act`, the activation's name."""

    layouts = (2,)
    norm = "batch"
    widths = {"hidden": ("first:out", "inner:dim", "second:in")}
    outlets = ("second",)
    sizes = {"hidden": lambda dim, _: dim}
    tiny = {"hidden": 6}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        norm: MakeNorm,
        out: int,
        *,
        hidden: int | None = None,
        kernels: tuple[tuple[int, ...], ...] = ((3, 3), (3, 3)),
        act: str = "relu",
    ) -> None:
        super().__init__()
        if len(kernels) != 2:
            raise BadSetting(
                f"block preact: {len(kernels)} kernels for two convolutions; give two, as in [[1,1],[3,3]]"
            )
        hidden = self.size("hidden", hidden, out)
        self.before, self.first = norm(dim), linear(dim, hidden, bias=False, kernel=kernels[0])
        self.inner, self.second = norm(hidden), linear(hidden, out, bias=False, kernel=kernels[1])
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first.convolve(self.act(self.before.planes(x.movedim(-1, 1))))
        return self.second.convolve(self.act(self.inner.planes(y))).movedim(1, -1)
