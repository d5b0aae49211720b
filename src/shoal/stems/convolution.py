"""Convolution: one convolution over the places, to dim channels, with a norm and an activation where asked for.

    y = act( norm( kernel * x ) )

Shapes   x: (batch, *places, channels);  y: (batch, *places / stride, dim)
Cost     channels * dim * kernel multiply-adds a place of y, as many weights
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import MakeLinear, Stem
from shoal.core.part import Part, Value
from shoal.kinds import NORMS


class ConvolutionStem(Stem):
    """Settings: `channels` of the data; `kernel`, its size along each place, odd; `stride`, places a step; `norm`, the
    norm's kind; `act`, the activation's name; `bias`, whether the convolution has one."""

    tiny = {"channels": 2}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        *,
        channels: int,
        kernel: tuple[int, ...] = (3, 3),
        stride: int = 1,
        norm: str = "none",
        act: str = "identity",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.first, self.stride = linear(channels, dim, bias=bias, kernel=kernel), stride
        self.norm = NORMS.make(Part.parse(norm), dim, dim=dim)
        self.act = activation(act)

    @classmethod
    def reads(cls, places: tuple[int, ...], channels: int, vocabulary: int | None) -> dict[str, Value] | None:
        if not places or vocabulary is not None:
            return None
        return {"channels": channels, "kernel": tuple(3 for _ in places)}

    def forward(self, x: Tensor) -> Tensor:
        y = self.first.convolve(x.movedim(-1, 1), self.stride)
        return self.act(self.norm.planes(y)).movedim(1, -1)
