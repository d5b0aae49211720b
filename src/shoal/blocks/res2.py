"""Res2: the channels in scales, each convolved after the one before is added to it: ever larger views of the places.

    x_1, ..., x_s = act( norm( first x ) )        s scales of as many channels
    y_1 = x_1,  y_2 = K_2(x_2),  y_i = K_i(x_i + y_{i-1});    y = third [y_1, ..., y_s]        K_i = act norm kernel_i

y_i sees 1 + (i - 1) * (kernel - 1) places along each axis. The scales run one after another: they are depth.

Shapes   x, y: (batch, *places, dim);  within: (batch, width, *places) a scale;  places: as many as kernel has sizes
Cost     2 * dim * scales * width + (scales - 1) * width^2 * kernel multiply-adds a place, as many weights
Papers   res2net-a-new-multi-scale-backbone
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear, MakeNorm
from shoal.core.errors import BadSetting


class Res2(Block):
    """Settings: `scales`, at least 2; `width`, channels of a scale (26 at a dim of 256 where not said); `kernel`, its
    size along each place, odd; `act`, the activation's name; `bias`, whether those have one that norms follow."""

    layouts = (2,)
    norm = "batch"
    inlets, outlets = ("first",), ("third",)
    folds = {"before": ("first:out",), "norms.*": ("kernels.*:out",)}
    sizes = {"width": lambda dim, _: max(dim * 26 // 256, 1)}
    tiny = {"scales": 3, "width": 2}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        norm: MakeNorm,
        out: int,
        *,
        scales: int = 4,
        width: int | None = None,
        kernel: tuple[int, ...] = (3, 3),
        act: str = "relu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        if scales < 2:
            raise BadSetting(f"block res2: scales={scales} convolves nothing; give at least 2, or take bottleneck")
        width, one = self.size("width", width, out), tuple(1 for _ in kernel)
        self.first, self.before = linear(dim, scales * width, bias=bias, kernel=one), norm(scales * width)
        self.kernels = nn.ModuleList(linear(width, width, bias=bias, kernel=kernel) for _ in range(scales - 1))
        self.norms = nn.ModuleList(norm(width) for _ in range(scales - 1))
        self.third = linear(scales * width, out, kernel=one)
        self.act, self.scales = activation(act), scales

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.act(self.before.planes(self.first.convolve(x.movedim(-1, 1)))).chunk(self.scales, dim=1)
        steps: list[tuple[Any, Any]] = list(zip(self.kernels, self.norms, strict=True))
        seen = [first]
        for index, (kernel, norm) in enumerate(steps):
            taken = rest[index] if index == 0 else rest[index] + seen[-1]
            seen.append(self.act(norm.planes(kernel.convolve(taken))))
        return self.third.convolve(torch.cat(seen, dim=1)).movedim(1, -1)
