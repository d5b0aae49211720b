"""Star: two matrices of the neighbourhood multiplied with each other, which makes all products of pairs of channels.

    u = norm( first x );    y = last( norm( mix( act(left u) * (right u) ) ) )        first, last: each channel alone

Without an activation, left and right make a quadratic form of u for each hidden unit.

Shapes   x, y: (batch, *places, dim);  within: (batch, hidden, *places);  places: as many as ``kernel`` has sizes
Cost     3 * dim * hidden + 2 * dim * kernel multiply-adds a place, as many weights (dense linears)
Papers   rewrite-the-stars
"""

from __future__ import annotations

from torch import Tensor

from shoal.blocks._depthwise import Depthwise
from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear, MakeNorm


class Star(Block):
    """Settings: `hidden`, products a place (4 * dim where not said); `kernel` of the two convolutions of single
    channels, its size along each place, odd; `act`, the activation's name."""

    # no `widths`: they would say that stars side by side are one wider star, and their convolutions differ
    layouts = (2,)
    norm = "batch"
    folds = {"before": ("left:in", "right:in"), "behind": ("mix:out",)}
    sizes = {"hidden": lambda dim, _: 4 * dim}
    tiny = {"hidden": 12, "kernel": (3, 3)}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        norm: MakeNorm,
        out: int,
        *,
        hidden: int | None = None,
        kernel: tuple[int, ...] = (7, 7),
        act: str = "relu6",
    ) -> None:
        super().__init__()
        hidden, one = self.size("hidden", hidden, out), tuple(1 for _ in kernel)
        self.first, self.before = Depthwise(dim, kernel, "star"), norm(dim)
        self.left, self.right = linear(dim, hidden, kernel=one), linear(dim, hidden, kernel=one)
        self.mix, self.behind = linear(hidden, out, kernel=one), norm(out)
        self.last = Depthwise(out, kernel, "star")
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        u = self.before.planes(self.first(x.movedim(-1, 1)))
        pairs = self.act(self.left.convolve(u)) * self.right.convolve(u)
        y: Tensor = self.last(self.behind.planes(self.mix.convolve(pairs)))
        return y.movedim(1, -1)
