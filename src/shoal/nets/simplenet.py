"""SimpleNet: thirteen convolutions one after another, and the largest of four places kept between their groups.

    64, 3 x 128 | 2 x 128, 256 | 2 x 256 | 512 | 2048 and 256, of 1 x 1 | 256 | largest place and linear map

All convolutions but two are of 3 x 3; behind each a norm and a relu. The dropout of the paper is no part of the net.

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Papers   lets-keep-it-simple-using-simple
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage

GROUPS = ((2, 2, 2), (2, 2, 4), (4, 4), (8,), (32, 4), (4,))  # widths, as many times the first; the fifth: 1 x 1
ONES = 4


class SimpleNet(Architecture):
    """Settings: `width` of the first convolution; the others have 2, 4, 8 and 32 times as many channels; `outputs`;
    `channels` of the data."""

    tiny = {"width": 4}

    def __init__(self, *, width: int = 64, outputs: int = 10, channels: int = 3) -> None:
        if min(width, outputs, channels) < 1:
            raise BadSetting(f"net simplenet: width={width}, outputs={outputs}, channels={channels}; give at least 1")
        self.width, self.outputs, self.channels = width, outputs, channels

    def spec(self) -> Spec:
        stages: list[Stage] = []
        for index, times in enumerate(GROUPS):
            kernel = (1, 1) if index == ONES else (3, 3)
            layer = LayerSpec(Part("unit", {"bias": True, "kernel": kernel}))
            wiring = Part("stepped", {"widths": tuple(self.width * n for n in times)})
            dim = stages[-1].out if stages else self.width
            stages.append(Stage(wiring, (layer,) * len(times), dim, join=Part("max_pool") if stages else None))
        stem = Part("convolution", {"channels": self.channels, "norm": "batch", "act": "relu"})
        return Spec(tuple(stages), stem, Part("max_pool", {"outputs": self.outputs}))
