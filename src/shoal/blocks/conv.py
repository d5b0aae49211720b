"""Conv: two convolutions with a norm and an activation between them.

    y = second( act( norm( first x ) ) )

The tensor is channels last; the convolutions see it through ``movedim``, a view that CPU kernels take without a copy.

Shapes   x, y: (batch, *places, dim);  within: (batch, hidden, *places);  places: as many as ``kernel`` has sizes
Cost     2 * dim * hidden * kernel multiply-adds a place, as many weights (dense linears)
Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear, MakeNorm


class Conv(Block):
    """Settings: `hidden`, channels within (dim where not said); `kernel`, its size along each place, odd; `act`, the
    activation's name; `bias`, whether the first convolution has one (behind it a norm takes any bias out again)."""

    layouts = (2,)
    norm = "batch"
    widths = {"hidden": ("first:out", "inner:dim", "second:in")}
    inlets, outlets = ("first",), ("second",)
    folds = {"inner": ("first:out",)}
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
        self.first = linear(dim, hidden, bias=bias, kernel=kernel)
        self.inner = norm(hidden)
        self.second = linear(hidden, out, kernel=kernel)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner.planes(self.first.convolve(x.movedim(-1, 1)))
        return self.second.convolve(self.act(y)).movedim(1, -1)
