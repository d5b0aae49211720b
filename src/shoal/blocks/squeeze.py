"""Squeeze: two convolutions, and a gate for each channel of what they give, read from its mean over all places.

    z = second( act( norm( first x ) ) ),  m = mean z
    y = z * sigmoid( excite [act(reduce_1 m), ..., act(reduce_b m)] )

The reductions side by side are one matrix, and are run as one. With one branch it is squeeze and excitation, with
several the aggregated dense layer of SENetV2.

Shapes   x, y: (batch, *places, dim);  within: (batch, hidden, *places);  places: as many as ``kernel`` has sizes
Cost     2 * dim * hidden * kernel multiply-adds a place and 2 * dim * branches * reduced more, as many weights
Exact when branches * reduced stays: any division into branches is the same map
Papers   senetv2-aggregated-dense-layer-for-channelwise
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear, MakeNorm
from shoal.core.errors import BadSetting


class Squeeze(Block):
    """Settings: `hidden`, channels within (dim where not said); `kernel`, its size along each place, odd; `reduced`,
    units of a branch (dim / 32 where not said); `branches`, side by side; `act`, the activation's name; `bias`, whether
    the first convolution has one (behind it a norm takes any bias out again)."""

    layouts = (2,)
    norm = "batch"
    widths = {"hidden": ("first:out", "inner:dim", "second:in"), "reduced": ("reduce:out", "excite:in")}
    inlets = ("first",)
    folds = {"inner": ("first:out",)}
    sizes = {"reduced": lambda dim, _: max(dim // 32, 1), "hidden": lambda dim, _: dim}
    tiny = {"hidden": 6, "reduced": 2, "branches": 2}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        norm: MakeNorm,
        out: int,
        *,
        hidden: int | None = None,
        kernel: tuple[int, ...] = (3, 3),
        reduced: int | None = None,
        branches: int = 4,
        act: str = "relu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        if branches < 1:
            raise BadSetting(f"block squeeze: branches={branches} reads nothing; give at least 1")
        hidden, one = self.size("hidden", hidden, out), tuple(1 for _ in kernel)
        width = branches * self.size("reduced", reduced, out)
        self.first, self.inner = linear(dim, hidden, bias=bias, kernel=kernel), norm(hidden)
        self.second = linear(hidden, out, kernel=kernel)
        self.reduce, self.excite = linear(out, width, kernel=one), linear(width, out, kernel=one)
        self.act = activation(act)
        self.all_places = tuple(range(2, 2 + len(kernel)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.second.convolve(self.act(self.inner.planes(self.first.convolve(x.movedim(-1, 1)))))
        gate = self.excite.convolve(self.act(self.reduce.convolve(y.mean(self.all_places, keepdim=True))))
        return (y * gate.sigmoid()).movedim(1, -1)
