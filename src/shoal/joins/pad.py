"""Pad: every `stride`-th place kept, new channels filled with zeros half before and half behind; no weights.

    y = [0, x[::stride], 0]

Shapes   x: (batch, *places, inputs);  y: (batch, *ceil(places / stride), outputs), outputs >= inputs
Cost     nothing
Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Join, MakeLinear
from shoal.core.errors import BadSpec


class Pad(Join):
    """Settings: `stride`, places a step."""

    def __init__(self, inputs: int, outputs: int, linear: MakeLinear, *, stride: int = 2) -> None:
        super().__init__()
        if outputs < inputs:
            raise BadSpec(f"join pad: {inputs} channels cannot be padded to {outputs}; use widen or downsample")
        before = (outputs - inputs) // 2
        self.channels, self.stride = (before, outputs - inputs - before), stride

    def forward(self, x: Tensor) -> Tensor:
        for axis in range(1, x.dim() - 1):
            x = x.narrow(axis, 0, x.shape[axis])[(slice(None),) * axis + (slice(None, None, self.stride),)]
        return F.pad(x, self.channels)
