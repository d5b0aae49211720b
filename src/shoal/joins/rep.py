"""Rep: a strided convolution and one of averaged places side by side, gated; one convolution once trained.

    y = silu( ( norm(wide x) + norm(point(mean of squares of x)) ) * 2 sigmoid(gate(mean x)) )

The strided block of ParNet. The squares are `stride` places wide; what is missing to one at the far edge counts as
zero, as it does for a convolution. The gate is one matrix on the means over all places, doubled so that it begins near
one. With groups, the channels are shuffled at the end: the n-th of every group, then the next of every group.

Shapes   x: (batch, *places, inputs);  y: (batch, *ceil(places / stride), outputs);  places: as many as kernel has sizes
Cost     inputs * outputs / groups * (kernel + 1) multiply-adds a place of y, and the gate's inputs * outputs / groups
Exact when folded in eval with norms of single channels: wide and point are one convolution (join ``rep_folded``)
Papers   non-deep-networks
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Join, MakeLinear, MakeNorm
from shoal.core.errors import BadSetting
from shoal.core.folding import kernel_of, laid, normed
from shoal.core.part import Part

POOLS = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)  # by places


class RepJoin(Join):
    """Settings: `kernel`, the wide convolution's size along each place, odd; `stride`, places a step; `groups` of all
    three matrices."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        linear: MakeLinear,
        norm: MakeNorm,
        *,
        kernel: tuple[int, ...] = (3, 3),
        stride: int = 2,
        groups: int = 1,
    ) -> None:
        super().__init__()
        if stride < 1 or not 1 <= len(kernel) <= len(POOLS):
            raise BadSetting(f"join rep: stride={stride}, kernel={list(kernel)}; give a stride of 1 or more, 1-3 sizes")
        one = tuple(1 for _ in kernel)
        self.wide, self.behind_wide = linear(inputs, outputs, bias=False, kernel=kernel, groups=groups), norm(outputs)
        self.point, self.behind_point = linear(inputs, outputs, bias=False, kernel=one, groups=groups), norm(outputs)
        self.gate = linear(inputs, outputs, bias=False, kernel=one, groups=groups)
        self.stride, self.groups, self.pool = stride, groups, POOLS[len(kernel) - 1]
        self.all_places = tuple(range(2, 2 + len(kernel)))

    def folded(self) -> tuple[Part, dict[str, Tensor]] | None:
        """The join ``rep_folded`` that gives the same in eval, and its weights."""
        if not (self.behind_wide.channelwise and self.behind_point.channelwise):
            return None
        kernel, stride = self.wide.kernel, self.stride
        wide, bias = normed(self.wide, self.behind_wide)
        point, shift = normed(self.point, self.behind_point)
        # a square begins at the place that the middle of the kernel reads
        middle = tuple(max(size // 2, stride - 1) for size in kernel)
        sizes = tuple(2 * half + 1 for half in middle)
        square = point.expand(*point.shape[:2], *(stride for _ in kernel)) / stride ** len(kernel)
        around = tuple(half - size // 2 for half, size in zip(middle, kernel, strict=True))
        weights = {
            "wide.weight": laid(wide, sizes, around) + laid(square, sizes, middle),
            "wide.bias": bias + shift,
            "gate.weight": kernel_of(self.gate),
        }
        return Part("rep_folded", {"kernel": sizes, "stride": stride, "groups": self.groups}), weights

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(-1, 1)
        missing = [pad for axis in reversed(self.all_places) for pad in (0, -x.shape[axis] % self.stride)]
        pooled = self.pool(F.pad(x, missing), self.stride)
        gate = 2 * self.gate.convolve(x.mean(self.all_places, keepdim=True)).sigmoid()
        y = self.behind_wide.planes(self.wide.convolve(x, self.stride))
        y = F.silu((y + self.behind_point.planes(self.point.convolve(pooled))) * gate).movedim(1, -1)
        return y if self.groups == 1 else y.unflatten(-1, (self.groups, -1)).transpose(-1, -2).flatten(-2)
