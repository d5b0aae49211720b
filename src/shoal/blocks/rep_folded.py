"""Rep folded: one convolution and a gated stream side by side; what the block ``rep`` is in eval.

    y = silu( wide x + u * sigmoid(gate(mean u)) ),    u = scale * x + shift

Run as x * (scale * g) + shift * g with the gate's g, so that u is never written out.

Shapes   x, y: (batch, *places, dim);  within: (batch, dim, *places);  places: as many as ``kernel`` has sizes
Cost     dim^2 * kernel multiply-adds a place and dim^2 more; dim^2 * (kernel + 1) + 3 * dim weights (dense linears)
Papers   non-deep-networks
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Block, MakeLinear


class RepFolded(Block):
    """Settings: `kernel`, the convolution's size along each place, odd."""

    layouts = (2,)
    norm = "none"

    def __init__(self, dim: int, linear: MakeLinear, *, kernel: tuple[int, ...] = (3, 3)) -> None:
        super().__init__()
        self.wide = linear(dim, dim, kernel=kernel)
        self.gate = linear(dim, dim, bias=False, kernel=tuple(1 for _ in kernel))
        self.scale, self.shift = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.all_places = tuple(range(2, 2 + len(kernel)))

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(-1, 1)
        scale, shift = (each.view(-1, *(1 for _ in self.all_places)) for each in (self.scale, self.shift))
        mean = x.mean(self.all_places, keepdim=True) * scale + shift
        gate = self.gate.convolve(mean).sigmoid()
        return F.silu(self.wide.convolve(x) + x * (scale * gate) + shift * gate).movedim(1, -1)
