"""Preact bottleneck: down to few channels, a convolution in groups among them and up again, a norm before each.

    y = third( act( norm( second( act( norm( first( act( norm x ) ) ) ) ) ) ) )        first, third: 1 x 1

Shapes   x, y: (batch, *places, dim);  within: (batch, hidden, *places);  places: as many as ``kernel`` has sizes
Cost     2 * dim * hidden + hidden^2 * kernel / groups multiply-adds a place, as many weights (dense linears)
Papers   dual-path-networks
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear, MakeNorm


class PreactBottleneck(Block):
    """Settings: `hidden`, channels within (a quarter of dim where not said); `kernel`, the middle one's size along each
    place, odd; `groups` of the middle one; `act`, the activation's name."""

    layouts = (2,)
    norm = "batch"
    widths = {"hidden": ("first:out", "inner:dim", "second:in", "second:out", "last:dim", "third:in")}
    outlets = ("third",)
    sizes = {"hidden": lambda dim, _: max(dim // 4, 1)}
    tiny = {"hidden": 6}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        norm: MakeNorm,
        out: int,
        *,
        hidden: int | None = None,
        kernel: tuple[int, ...] = (3, 3),
        groups: int = 1,
        act: str = "relu",
    ) -> None:
        super().__init__()
        hidden = self.size("hidden", hidden, out)
        one = tuple(1 for _ in kernel)
        self.before, self.first = norm(dim), linear(dim, hidden, bias=False, kernel=one)
        self.inner, self.second = norm(hidden), linear(hidden, hidden, bias=False, kernel=kernel, groups=groups)
        self.last, self.third = norm(hidden), linear(hidden, out, bias=False, kernel=one)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first.convolve(self.act(self.before.planes(x.movedim(-1, 1))))
        y = self.second.convolve(self.act(self.inner.planes(y)))
        return self.third.convolve(self.act(self.last.planes(y))).movedim(1, -1)
