"""Basic: two convolutions, a norm behind each, an activation between them; the branch of a residual net of 2015.

    y = norm( second( act( norm( first x ) ) ) )

With the wiring `residual[act=relu]`, which activates each sum, it is the basic block of the first residual nets.

Shapes   x, y: (batch, *places, dim);  within: (batch, hidden, *places);  places: as many as ``kernel`` has sizes
Cost     2 * dim * hidden * kernel multiply-adds a place, as many weights (dense linears)
Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear, MakeNorm


class Basic(Block):
    """Settings: `hidden`, channels within (dim where not said); `kernel`, its size along each place, odd; `act`, the
    activation's name; `bias`, whether the convolutions have one (the norms behind them take any bias out again)."""

    layouts = (2,)
    norm = "batch"
    widths = {"hidden": ("first:out", "inner:dim", "second:in")}
    inlets = ("first",)
    folds = {"inner": ("first:out",), "outer": ("second:out",)}
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
        kernel: tuple[int, ...] = (3, 3),
        act: str = "relu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        hidden = self.size("hidden", hidden, out)
        self.first, self.inner = linear(dim, hidden, bias=bias, kernel=kernel), norm(hidden)
        self.second, self.outer = linear(hidden, out, bias=bias, kernel=kernel), norm(out)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.inner.planes(self.first.convolve(x.movedim(-1, 1))))
        return self.outer.planes(self.second.convolve(y)).movedim(1, -1)
