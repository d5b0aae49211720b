"""DLA: stages of blocks in trees whose roots merge what their branches found.

    7 x 7 convolution, two of 3 x 3 | trees of 2^height blocks, a strided convolution before each | mean and linear map

In the paper the first block of a tree is the strided one, and the roots of the later stages also read what comes into
their stage; here a convolution stands before a tree, and a root reads only what is in it. Of the two convolutions of
3 x 3 the first is strided here, in the paper the second.

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Papers   deep-layer-aggregation
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting
from shoal.core.part import Part, Value
from shoal.core.spec import LayerSpec, Spec, Stage

NORMED: dict[str, Value] = {"norm": "batch", "act": "relu", "bias": False}


class DLA(Architecture):
    """Settings: `heights`, of the tree of each stage; `width` of the first stage, which doubles from stage to stage;
    `outputs`; `channels` of the data."""

    tiny = {"heights": (1, 2), "width": 8}
    variants = {"dla34": {}}

    def __init__(
        self, *, heights: tuple[int, ...] = (1, 2, 2, 1), width: int = 64, outputs: int = 1000, channels: int = 3
    ) -> None:
        if not heights or min(*heights, outputs, channels) < 1 or width < 4:
            raise BadSetting(
                f"net dla: heights={list(heights)}, width={width}, outputs={outputs}, channels={channels}; "
                "give at least 1 of each, and a width of at least 4"
            )
        self.heights, self.width, self.outputs, self.channels = heights, width, outputs, channels

    def spec(self) -> Spec:
        wiring, layer, join = Part("hierarchical"), LayerSpec(Part("basic")), Part("convolution", NORMED)
        stages = [Stage(Part("plain"), (LayerSpec(Part("unit")),), self.width // 2)]
        for index, height in enumerate(self.heights):
            stages.append(Stage(wiring, (layer,) * 2**height, self.width * 2**index, join=join))
        wide = Part("convolution", {"kernel": (7, 7), **NORMED})
        ends: dict[str, Value] = {"width": self.width // 4, "first": str(wide), "join": str(join)}
        stem = Part("entry", {"channels": self.channels, **ends})
        return Spec(tuple(stages), stem, Part("pool", {"outputs": self.outputs, "norm": "none"}))
