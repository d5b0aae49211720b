"""FractalNet: fractal blocks and the largest of four places kept between them; deep, and without residuals.

    3 x 3 convolution | blocks of 2^columns - 1 convolutions, wider from one to the next | largest place and linear map

In the paper a block's own first convolutions change the width, one in each column; here one linear map behind the pool
does, so each layer keeps the width of its block. The dropout of the paper is no part of the net.

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Papers   fractalnet-ultra-deep-neural-networks-without
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage


class FractalNet(Architecture):
    """Settings: `columns` of a block, whose longest path is 2^(columns - 1); `widths`, channels of each block; `drop`,
    how likely an input of a mean is dropped in training; `outputs`; `channels` of the data."""

    tiny = {"columns": 2, "widths": (4, 6), "drop": 0.0}
    variants = {"fractalnet20": {"columns": 3}}  # five blocks whose longest path is four convolutions

    def __init__(
        self,
        *,
        columns: int = 3,
        widths: tuple[int, ...] = (64, 128, 256, 512, 512),
        drop: float = 0.15,
        outputs: int = 10,
        channels: int = 3,
    ) -> None:
        if not widths or min(columns, outputs, channels, *widths) < 1:
            raise BadSetting(
                f"net fractalnet: columns={columns}, widths={list(widths)}, outputs={outputs}, channels={channels}; "
                "give at least 1 of each"
            )
        self.columns, self.widths, self.drop, self.outputs, self.channels = columns, widths, drop, outputs, channels

    def spec(self) -> Spec:
        wiring = Part("fractal", {"columns": self.columns, "drop": self.drop})
        layers = (LayerSpec(Part("unit")),) * (2**self.columns - 1)
        stages = [
            Stage(wiring, layers, width, join=Part("max_pool") if index else None)
            for index, width in enumerate(self.widths)
        ]
        stem = Part("convolution", {"channels": self.channels, "norm": "batch", "act": "relu", "bias": False})
        return Spec(tuple(stages), stem, Part("max_pool", {"outputs": self.outputs}))
