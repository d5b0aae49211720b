"""Convolution: one convolution over the places, to dim channels.

    y = kernel * x

Shapes   x: (batch, *places, channels);  y: (batch, *places / stride, dim)
Cost     channels * dim * kernel multiply-adds a place of y, as many weights
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.base import MakeLinear, Stem
from shoal.core.part import Value


class ConvolutionStem(Stem):
    """Settings: `channels` of the data; `kernel`, its size along each place, odd; `stride`, places a step."""

    tiny = {"channels": 2}

    def __init__(
        self, dim: int, linear: MakeLinear, *, channels: int, kernel: tuple[int, ...] = (3, 3), stride: int = 1
    ) -> None:
        super().__init__()
        self.first, self.stride = linear(channels, dim, kernel=kernel), stride

    @classmethod
    def reads(cls, places: tuple[int, ...], channels: int, vocabulary: int | None) -> dict[str, Value] | None:
        if not places or vocabulary is not None:
            return None
        return {"channels": channels, "kernel": tuple(3 for _ in places)}

    def forward(self, x: Tensor) -> Tensor:
        return self.first.convolve(x.movedim(-1, 1), self.stride).movedim(1, -1)
