"""Bottleneck: down to few channels, a convolution among them, and up again.

    y = third( act( norm( second( act( norm( first x ) ) ) ) ) )        first, third: 1 x 1;  second: kernel

Shapes   x, y: (batch, *places, dim);  within: (batch, hidden, *places);  places: as many as ``kernel`` has sizes
Cost     2 * dim * hidden + hidden^2 * kernel / groups multiply-adds a place, as many weights (dense linears)
Papers   deep-residual-learning-for-image-recognition, aggregated-residual-transformations-for-deep-neural
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear, MakeNorm


class Bottleneck(Block):
    """Settings: `hidden`, channels within (a quarter of dim where not said); `kernel`, the middle one's size along each
    place, odd; `groups` of the middle one; `act`, the activation's name; `bias`, of the two that norms follow."""

    layouts = (2,)
    norm = "batch"
    widths = {"hidden": ("first:out", "before:dim", "second:in", "second:out", "behind:dim", "third:in")}
    inlets, outlets = ("first",), ("third",)
    folds = {"before": ("first:out",), "behind": ("second:out",)}
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
        bias: bool = False,
    ) -> None:
        super().__init__()
        hidden = self.size("hidden", hidden, out)
        one = tuple(1 for _ in kernel)
        self.first, self.before = linear(dim, hidden, bias=bias, kernel=one), norm(hidden)
        self.second, self.behind = linear(hidden, hidden, bias=bias, kernel=kernel, groups=groups), norm(hidden)
        self.third = linear(hidden, out, kernel=one)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.before.planes(self.first.convolve(x.movedim(-1, 1))))
        y = self.act(self.behind.planes(self.second.convolve(y)))
        return self.third.convolve(y).movedim(1, -1)
