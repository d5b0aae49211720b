"""CSPNet: a ResNeXt in whose stages half of the channels go past all blocks; the form for small images.

    3 x 3 convolution | stages of cross-stage bottlenecks in groups, a strided convolution between | mean and linear map

The published backbones are for images of 224 pixels and begin with a strided stem; the stages are the same.

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Papers   cspnet-a-new-backbone-that-can
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting
from shoal.core.part import Part, Value
from shoal.core.spec import LayerSpec, Spec, Stage

NORMED: dict[str, Value] = {"norm": "batch", "act": "relu", "bias": False}


class CSPNet(Architecture):
    """Settings: `layers` of each stage; `width` of the first stage, which doubles from stage to stage; `groups` of the
    blocks; `share` of the channels that go past; `outputs`; `channels` of the data."""

    tiny = {"layers": (1, 2), "width": 8, "groups": 2}

    def __init__(
        self,
        *,
        layers: tuple[int, ...] = (3, 3, 3),
        width: int = 128,
        groups: int = 8,
        share: float = 0.5,
        outputs: int = 10,
        channels: int = 3,
    ) -> None:
        if not layers or min(*layers, width, groups, outputs, channels) < 1 or not 0 <= share < 1:
            raise BadSetting(
                f"net cspnet: layers={list(layers)}, width={width}, groups={groups}, share={share}, outputs={outputs}, "
                f"channels={channels}; give at least 1 of each, and a share of at least 0 and less than 1"
            )
        self.layers, self.width, self.groups, self.share = layers, width, groups, share
        self.outputs, self.channels = outputs, channels

    def spec(self) -> Spec:
        stages: list[Stage] = []
        for index, layers in enumerate(self.layers):
            width = self.width * 2**index
            through = width - int(self.share * width)
            inner: dict[str, Value] = {
                "groups": self.groups,
                "hidden": max(through // 2 // self.groups, 1) * self.groups,
            }
            wiring, layer = Part("cross_stage", {"share": self.share}), LayerSpec(Part("aggregated", inner))
            join = Part("convolution", NORMED) if index else None
            stages.append(Stage(wiring, (layer,) * layers, width, join=join))
        stem = Part("convolution", {"channels": self.channels, **NORMED})
        return Spec(tuple(stages), stem, Part("pool", {"outputs": self.outputs, "norm": "none"}))
