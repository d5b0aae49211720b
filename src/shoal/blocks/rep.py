"""Rep: a wide convolution, one of a single place and a gated stream side by side; one convolution once trained.

    y = silu( norm(wide x) + norm(point x) + u * sigmoid(gate(mean u)) ),    u = norm(x)

The block of ParNet (RepVGG-SSE). The gate is one matrix on the means over all places, so it makes the net no deeper.

Shapes   x, y: (batch, *places, dim);  within: (batch, dim, *places);  places: as many as ``kernel`` has sizes
Cost     dim^2 * (kernel + 1) multiply-adds a place and dim^2 more; dim^2 * (kernel + 2) weights (dense linears)
Exact when folded in eval with norms of single channels: wide and point are one convolution (block ``rep_folded``)
Papers   non-deep-networks
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Block, MakeLinear, MakeNorm
from shoal.core.folding import kernel_of, laid, normed
from shoal.core.part import Part


class Rep(Block):
    """Settings: `kernel`, the wide convolution's size along each place, odd."""

    layouts = (2,)
    norm = "batch"

    def __init__(self, dim: int, linear: MakeLinear, norm: MakeNorm, *, kernel: tuple[int, ...] = (3, 3)) -> None:
        super().__init__()
        one = tuple(1 for _ in kernel)
        self.wide, self.behind_wide = linear(dim, dim, bias=False, kernel=kernel), norm(dim)
        self.point, self.behind_point = linear(dim, dim, bias=False, kernel=one), norm(dim)
        self.still, self.gate = norm(dim), linear(dim, dim, bias=False, kernel=one)
        self.all_places = tuple(range(2, 2 + len(kernel)))

    def folded(self) -> tuple[Part, dict[str, Tensor]] | None:
        """The block ``rep_folded`` that gives the same in eval, and its weights."""
        if not all(norm.channelwise for norm in (self.behind_wide, self.behind_point, self.still)):
            return None
        sizes = self.wide.kernel
        wide, bias = normed(self.wide, self.behind_wide)
        point, shift = normed(self.point, self.behind_point)
        middle = tuple(size // 2 for size in sizes)
        weights = {"wide.weight": wide + laid(point, sizes, middle), "wide.bias": bias + shift}
        weights["scale"], weights["shift"] = self.still.affine()
        return Part("rep_folded", {"kernel": sizes}), {**weights, "gate.weight": kernel_of(self.gate)}

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(-1, 1)
        u = self.still.planes(x)
        gate = self.gate.convolve(u.mean(self.all_places, keepdim=True)).sigmoid()
        y = self.behind_wide.planes(self.wide.convolve(x)) + self.behind_point.planes(self.point.convolve(x))
        return F.silu(y + u * gate).movedim(1, -1)
