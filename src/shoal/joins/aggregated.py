"""Aggregated: the block `aggregated` with a stride, its shortcut beside it, and an activation behind their sum.

    y = act( shortcut x + norm( third( act( norm( second( act( norm( first x ) ) ) ) ) ) ) )

`second` keeps every `stride`-th place. The shortcut is itself a join; a convolution of 1 x 1 where not said.

Shapes   x: (batch, *places, inputs);  y: (batch, *ceil(places / stride), outputs);  places: as many as kernel has sizes
Cost     inputs * hidden multiply-adds a place of x, (hidden * kernel / groups + outputs) * hidden a place of y, as many
         weights, and what the shortcut costs
Papers   aggregated-residual-transformations-for-deep-neural, deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Join, MakeLinear
from shoal.core.part import Part
from shoal.joins._shortcut import PROJECTION, shortcut_of
from shoal.joins._stride import require_stride
from shoal.kinds import NORMS


class AggregatedJoin(Join):
    """Settings: `hidden`, channels within (half of dim where not said); `groups` of the middle convolution; `stride`,
    places a step; `kernel`, its size along each place, odd; `norm`, the norms' kind; `act`, the activation's name;
    `shortcut`, a join as text, without its stride."""

    sizes = {"hidden": lambda dim, _: max(dim // 2, 1)}

    def __init__(
        self,
        inputs: int,
        outputs: int,
        linear: MakeLinear,
        *,
        hidden: int | None = None,
        groups: int = 1,
        stride: int = 2,
        kernel: tuple[int, ...] = (3, 3),
        norm: str = "batch",
        act: str = "relu",
        shortcut: str = PROJECTION,
    ) -> None:
        super().__init__()
        require_stride("aggregated", stride)
        hidden = self.size("hidden", hidden, outputs)
        one = tuple(1 for _ in kernel)
        self.first = linear(inputs, hidden, bias=False, kernel=one)
        self.before = NORMS.make(Part.parse(norm), hidden, dim=hidden)
        self.second = linear(hidden, hidden, bias=False, kernel=kernel, groups=groups)
        self.behind = NORMS.make(Part.parse(norm), hidden, dim=hidden)
        self.third = linear(hidden, outputs, bias=False, kernel=one)
        self.outer = NORMS.make(Part.parse(norm), outputs, dim=outputs)
        self.shortcut = shortcut_of(shortcut, inputs, outputs, stride, linear, norm)
        self.act, self.stride = activation(act), stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.before.planes(self.first.convolve(x.movedim(-1, 1))))
        y = self.act(self.behind.planes(self.second.convolve(y, self.stride)))
        y = self.outer.planes(self.third.convolve(y)).movedim(1, -1)
        return self.act(self.shortcut(x) + y)
