"""Wide ResNet: a residual net of few blocks with many channels, norms before the convolutions.

    3 x 3 convolution to 16 | three stages of (depth - 4) / 6 blocks at 16, 32, 64 times width | norm, relu, mean, map

The first block of each stage changes the width, of the later stages the places too: it is the join `preact` (in the
stem of the first stage, where the width changes at all); all other blocks are layers.

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting
from shoal.core.part import Part, Value
from shoal.core.spec import LayerSpec, Spec, Stage

BASE = 16  # channels of the stem, and of the first stage at width 1


class WideResNet(Architecture):
    """Settings: `depth`, 6 n + 4 with n of at least 2; `width`, how many times as wide as the thin net; `outputs`;
    `channels` of the data."""

    tiny = {"depth": 16, "width": 1}
    variants = {
        f"wide_resnet{depth}_{width}": {"depth": depth, "width": width}
        for depth, width in ((16, 4), (16, 8), (22, 8), (28, 10), (40, 1), (40, 2), (40, 4))
    }

    def __init__(self, *, depth: int = 28, width: int = 10, outputs: int = 10, channels: int = 3) -> None:
        if depth < 16 or depth % 6 != 4:
            raise BadSetting(
                f"net wide_resnet: depth={depth} is not 6 n + 4 with n of at least 2; give 16, 22, 28, ..."
            )
        if min(width, outputs, channels) < 1:
            raise BadSetting(f"net wide_resnet: width={width}, outputs={outputs}, channels={channels}; give at least 1")
        self.blocks, self.width, self.outputs, self.channels = (depth - 4) // 6, width, outputs, channels

    def spec(self) -> Spec:
        wiring, layer, first = Part("residual"), LayerSpec(Part("preact")), BASE * self.width
        if self.width == 1:  # the stem is as wide as the first stage: its first block is like the others
            stem = Part("convolution", {"channels": self.channels, "bias": False})
            stages = [Stage(wiring, (layer,) * self.blocks, first)]
        else:
            ends: dict[str, Value] = {"first": "convolution[bias=false]", "join": "preact[stride=1]"}
            stem = Part("entry", {"channels": self.channels, "width": BASE, **ends})
            stages = [Stage(wiring, (layer,) * (self.blocks - 1), first)]
        for width in (2 * first, 4 * first):
            stages.append(Stage(wiring, (layer,) * (self.blocks - 1), width, join=Part("preact")))
        return Spec(tuple(stages), stem, Part("norm_pool", {"outputs": self.outputs}))
