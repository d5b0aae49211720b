"""Dual: the first block of a dual path stage; what comes in is projected, and a residual and a dense part begin.

    [s_r, s_d] = w( act( norm x ) )          w: 1 x 1,  s_d: 2 * growth channels
    [y_r, y_d] = b( x )                      b: three convolutions, a norm and an activation before each,  y_d: growth
    y = [s_r + y_r, s_d, y_d]

The middle convolution of b and w keep every `stride`-th place.

Shapes   x: (batch, *places, inputs);  y: (batch, *ceil(places / stride), outputs);  places: as many as kernel has sizes
Cost     inputs * (hidden + outputs - growth) + hidden * (hidden * kernel / groups + outputs - 2 * growth) weights
Papers   dual-path-networks
"""

from __future__ import annotations

import torch
from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Join, MakeLinear, Norm
from shoal.core.errors import BadSpec
from shoal.core.part import Part
from shoal.joins._stride import require_stride
from shoal.kinds import NORMS


class Dual(Join):
    """Settings: `growth`, channels that a layer of the stage adds; `hidden`, channels within b (a quarter of what comes
    out where not said); `groups` of its middle convolution; `stride`, places a step; `kernel`, odd; `norm`, the norms'
    kind; `act`, the activation's name."""

    sizes = {"hidden": lambda dim, _: max(dim // 4, 1)}
    tiny = {"growth": 1}

    def __init__(
        self,
        inputs: int,
        outputs: int,
        linear: MakeLinear,
        *,
        growth: int = 16,
        hidden: int | None = None,
        groups: int = 1,
        stride: int = 2,
        kernel: tuple[int, ...] = (3, 3),
        norm: str = "batch",
        act: str = "relu",
    ) -> None:
        super().__init__()
        require_stride("dual", stride)
        self.residual, one = outputs - 3 * growth, tuple(1 for _ in kernel)
        if growth < 0 or self.residual < 1:
            raise BadSpec(f"join dual: growth={growth} leaves no residual part of {outputs} channels; lower it")
        hidden = self.size("hidden", hidden, outputs)
        self.before_w, self.w = _norm(norm, inputs), linear(inputs, outputs - growth, bias=False, kernel=one)
        self.before, self.first = _norm(norm, inputs), linear(inputs, hidden, bias=False, kernel=one)
        self.inner = _norm(norm, hidden)
        self.second = linear(hidden, hidden, bias=False, kernel=kernel, groups=groups)
        self.last = _norm(norm, hidden)
        self.third = linear(hidden, self.residual + growth, bias=False, kernel=one)
        self.act, self.stride = activation(act), stride

    def forward(self, x: Tensor) -> Tensor:
        x, size = x.movedim(-1, 1), self.residual
        s = self.w.convolve(self.act(self.before_w.planes(x)), self.stride).movedim(1, -1)
        y = self.first.convolve(self.act(self.before.planes(x)))
        y = self.second.convolve(self.act(self.inner.planes(y)), self.stride)
        y = self.third.convolve(self.act(self.last.planes(y))).movedim(1, -1)
        return torch.cat((s[..., :size] + y[..., :size], s[..., size:], y[..., size:]), dim=-1)


def _norm(norm: str, dim: int) -> Norm:
    made: Norm = NORMS.make(Part.parse(norm), dim, dim=dim)
    return made
