"""Rep folded: one strided convolution, gated; what the join ``rep`` is in eval.

    y = silu( wide x * 2 sigmoid(gate(mean x)) )

With groups, the channels are shuffled at the end: the n-th of every group, then the next of every group.

Shapes   x: (batch, *places, inputs);  y: (batch, *ceil(places / stride), outputs);  places: as many as kernel has sizes
Cost     inputs * outputs / groups * kernel multiply-adds a place of y, and the gate's inputs * outputs / groups
Papers   non-deep-networks
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Join, MakeLinear
from shoal.core.errors import BadSetting


class RepFoldedJoin(Join):
    """Settings: `kernel`, the convolution's size along each place, odd; `stride`, places a step; `groups` of both
    matrices."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        linear: MakeLinear,
        *,
        kernel: tuple[int, ...] = (3, 3),
        stride: int = 2,
        groups: int = 1,
    ) -> None:
        super().__init__()
        if stride < 1:
            raise BadSetting(f"join rep_folded: stride={stride} makes no step; give at least 1")
        self.wide = linear(inputs, outputs, kernel=kernel, groups=groups)
        self.gate = linear(inputs, outputs, bias=False, kernel=tuple(1 for _ in kernel), groups=groups)
        self.stride, self.groups = stride, groups
        self.all_places = tuple(range(2, 2 + len(kernel)))

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(-1, 1)
        gate = 2 * self.gate.convolve(x.mean(self.all_places, keepdim=True)).sigmoid()
        y = F.silu(self.wide.convolve(x, self.stride) * gate).movedim(1, -1)
        return y if self.groups == 1 else y.unflatten(-1, (self.groups, -1)).transpose(-1, -2).flatten(-2)
