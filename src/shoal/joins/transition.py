"""Transition: a norm, an activation and a linear map at each place, then neighbouring places averaged.

    y = mean over a square of `stride` places of map( act( norm x ) )

Between the stages of a dense net, where `outputs` is a share of the channels that have been collected.

Shapes   x: (batch, *places, inputs);  y: (batch, *ceil(places / stride), outputs);  places: as many as kernel has sizes
Cost     inputs * outputs * kernel multiply-adds a place of x, as many weights
Papers   densely-connected-convolutional-networks
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.activations import activation
from shoal.core.base import Join, MakeLinear
from shoal.core.errors import BadSetting
from shoal.core.part import Part
from shoal.joins._stride import require_stride
from shoal.kinds import NORMS

POOLS = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)  # by places


class Transition(Join):
    """Settings: `stride`, places averaged along each axis; `kernel` of the map, odd; `norm`, the norm's kind; `act`,
    the activation's name."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        linear: MakeLinear,
        *,
        stride: int = 2,
        kernel: tuple[int, ...] = (1, 1),
        norm: str = "batch",
        act: str = "relu",
    ) -> None:
        super().__init__()
        require_stride("transition", stride)
        if not 1 <= len(kernel) <= len(POOLS):
            raise BadSetting(
                f"join transition: kernel={list(kernel)}; give one to three sizes, one for each axis of places"
            )
        self.before = NORMS.make(Part.parse(norm), inputs, dim=inputs)
        self.map = linear(inputs, outputs, bias=False, kernel=kernel)
        self.act, self.stride, self.pool = activation(act), stride, POOLS[len(kernel) - 1]

    def forward(self, x: Tensor) -> Tensor:
        y = self.map.convolve(self.act(self.before.planes(x.movedim(-1, 1))))
        return self.pool(y, self.stride, ceil_mode=True).movedim(1, -1)
