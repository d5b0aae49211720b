"""Aggregated: down to few channels, a convolution in groups among them, and up again, a norm behind each.

    y = norm( third( act( norm( second( act( norm( first x ) ) ) ) ) ) )        first, third: 1 x 1;  second: kernel

Each group is a branch of its own, and what the branches give is summed by `third`. With the wiring `residual[act=relu]`
it is the block of ResNeXt, and with one group the bottleneck of the first residual nets. The block `bottleneck` is the
same without the last norm.

Shapes   x, y: (batch, *places, dim);  within: (batch, hidden, *places);  places: as many as ``kernel`` has sizes
Cost     2 * dim * hidden + hidden^2 * kernel / groups multiply-adds a place, as many weights (dense linears)
Papers   aggregated-residual-transformations-for-deep-neural, deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear, MakeNorm


class Aggregated(Block):
    """Settings: `hidden`, channels within (half of dim where not said); `kernel`, the middle one's size along each
    place, odd; `groups` of the middle one; `act`, the activation's name; `bias`, whether the convolutions have one."""

    layouts = (2,)
    norm = "batch"
    widths = {"hidden": ("first:out", "before:dim", "second:in", "second:out", "behind:dim", "third:in")}
    inlets = ("first",)
    folds = {"before": ("first:out",), "behind": ("second:out",), "outer": ("third:out",)}
    sizes = {"hidden": lambda dim, _: max(dim // 2, 1)}
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
        self.third, self.outer = linear(hidden, out, bias=bias, kernel=one), norm(out)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.before.planes(self.first.convolve(x.movedim(-1, 1))))
        y = self.act(self.behind.planes(self.second.convolve(y)))
        return self.outer.planes(self.third.convolve(y)).movedim(1, -1)
